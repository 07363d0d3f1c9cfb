// Trainings of the small network, a few steps at a time, and the plane on which their ways are seen.

const PASSES = 100; // through all rows; of each its weights and its loss are kept
const NET_RATES = [0.003, 0.01, 0.03, 0.1, 0.3, 1, 3];

// The rows of every batch, pass after pass: in one order for all who train with batches of this size.
function batches(size, seed) {
  const random = randoms(2000 + seed);
  const order = Array.from({ length: ROWS }, (_, k) => k);
  const found = [];
  for (let pass = 0; pass < PASSES; pass++) {
    if (size < ROWS) {
      for (let k = ROWS - 1; k > 0; k--) {
        const other = Math.floor((k + 1) * random());
        [order[k], order[other]] = [order[other], order[k]];
      }
    }
    for (let k = 0; k < ROWS; k += size) found.push(order.slice(k, k + size));
  }
  return found;
}

// A training by a rule, from the weights of a seed.
function training(code, numbers, data, rowsOf, seed) {
  const x = firstWeights(seed);
  const perPass = rowsOf.length / PASSES;
  const made = {
    code, numbers, data, rowsOf, perPass, x, t: 0,
    dx: new Float64Array(NET_SIZE), at: new Float64Array(NET_SIZE), states: code.start(x, numbers),
    weights: new Float64Array((PASSES + 1) * NET_SIZE), losses: new Float64Array(PASSES + 1).fill(NaN), wrong: new Float64Array(PASSES + 1).fill(NaN),
  };
  kept(made);
  return made;
}

const passesOf = ({ t, perPass }) => Math.floor(t / perPass);

function kept(each) {
  const pass = passesOf(each);
  each.weights.set(each.x, pass * NET_SIZE);
  const { loss, wrong } = netLoss(each.x, each.data);
  [each.losses[pass], each.wrong[pass]] = [loss, wrong];
}

// One pass through all rows.
function trainPass(each) {
  const { code, numbers, data, rowsOf, perPass, x, dx, at, states } = each;
  for (let k = 0; k < perPass; k++) {
    if (code.point) code.point(at, x, states, numbers);
    netSlope(code.point ? at : x, data, rowsOf[each.t], dx);
    code.step(x, dx, states, numbers, ++each.t);
  }
  kept(each);
}

// Where a training is after a pass, as an array that is a part of another.
const weightsAt = ({ weights }, pass) => weights.subarray(pass * NET_SIZE, (pass + 1) * NET_SIZE);

// The plane in which the ways of trainings are spread most: the mean of their points, two directions at right angles, and
// which part of the spread is in it. Begun with the directions of before, it does not turn over while they train.
function planeOf(trainings, before) {
  const points = [];
  for (const each of trainings) {
    const passes = passesOf(each);
    for (let pass = 0; pass <= passes; pass++) if (each.losses[pass] < 20) points.push(weightsAt(each, pass));
  }
  const middle = new Float64Array(NET_SIZE);
  for (const point of points) for (let i = 0; i < NET_SIZE; i++) middle[i] += point[i] / points.length;
  const centred = points.map((point) => point.map((value, i) => value - middle[i]));
  let total = 0;
  for (const point of centred) total += dot(point, point);
  const axes = [];
  let within = 0;
  for (let k = 0; k < 2; k++) {
    let axis = before ? before.axes[k] : Float64Array.from({ length: NET_SIZE }, (_, i) => Math.sin(1 + i * (k + 1)));
    for (let round = 0; round < (before ? 8 : 60); round++) {
      const next = new Float64Array(NET_SIZE);
      for (const point of centred) {
        const share = dot(point, axis);
        for (let i = 0; i < NET_SIZE; i++) next[i] += share * point[i];
      }
      for (const other of axes) {
        const share = dot(next, other);
        for (let i = 0; i < NET_SIZE; i++) next[i] -= share * other[i];
      }
      const length = Math.sqrt(dot(next, next));
      if (!(length > 0)) break;
      axis = next.map((value) => value / length);
    }
    axes.push(axis);
    for (const point of centred) within += dot(point, axis) ** 2;
  }
  return { middle, axes, explained: total ? within / total : NaN };
}

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

// Where weights are on the plane.
const onPlane = ({ middle, axes }, weights) => axes.map((axis) => dot(weights, axis) - dot(middle, axis));
