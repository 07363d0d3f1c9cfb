// A small real network: two inputs, sixteen hidden units, one output, and what it is to learn. Its loss and the gradient of
// it are written out here for this one network.

const HIDDEN = 16;
const NET_SIZE = 4 * HIDDEN + 1; // of each hidden unit its two weights, its bias and its weight in the output; the output's bias
const ROWS = 200;

// Numbers from 0 to below 1, the same ones everywhere for the same seed (Mulberry32).
function randoms(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

// Two half-moons that lie in one another, each point moved a little: x, y of every row, and its class, -1 or 1.
function moons(seed = 1) {
  const random = randoms(seed);
  const noise = () => 0.35 * (random() + random() + random() - 1.5);
  const [points, classes] = [new Float64Array(2 * ROWS), new Float64Array(ROWS)];
  for (let k = 0; k < ROWS; k++) {
    const upper = k % 2 === 0;
    const angle = Math.PI * random();
    points[2 * k] = (upper ? Math.cos(angle) : 1 - Math.cos(angle)) - 0.5 + noise();
    points[2 * k + 1] = (upper ? Math.sin(angle) : 0.5 - Math.sin(angle)) - 0.25 + noise();
    classes[k] = upper ? 1 : -1;
  }
  return { points, classes };
}

// The weights before the first step, uniform and smaller the more inputs a unit has (Glorot & Bengio, 2010).
function firstWeights(seed) {
  const random = randoms(1000 + seed);
  const within = (inputs, outputs) => (2 * random() - 1) * Math.sqrt(6 / (inputs + outputs));
  const w = new Float64Array(NET_SIZE);
  for (let h = 0; h < HIDDEN; h++) w.set([within(2, HIDDEN), within(2, HIDDEN), 0, within(HIDDEN, 1)], 4 * h);
  return w;
}

// What the network puts out at a point: above 0 it takes it for class 1.
function netOutput(w, x, y) {
  let z = w[NET_SIZE - 1];
  for (let h = 0; h < 4 * HIDDEN; h += 4) z += w[h + 3] * Math.tanh(w[h] * x + w[h + 1] * y + w[h + 2]);
  return z;
}

// The mean logistic loss over some rows, log(1 + exp(-class * z)), and its gradient, put into an array.
const units = new Float64Array(HIDDEN);
function netSlope(w, { points, classes }, rows, dx) {
  dx.fill(0);
  let sum = 0;
  for (const k of rows) {
    const [x, y, side] = [points[2 * k], points[2 * k + 1], classes[k]];
    let z = w[NET_SIZE - 1];
    for (let h = 0; h < HIDDEN; h++) {
      units[h] = Math.tanh(w[4 * h] * x + w[4 * h + 1] * y + w[4 * h + 2]);
      z += w[4 * h + 3] * units[h];
    }
    const small = Math.exp(-Math.abs(z));
    sum += Math.max(-side * z, 0) + Math.log1p(small);
    const slope = (-side * (side * z > 0 ? small : 1)) / ((1 + small) * rows.length);
    for (let h = 0; h < HIDDEN; h++) {
      const inside = slope * w[4 * h + 3] * (1 - units[h] * units[h]);
      dx[4 * h] += inside * x;
      dx[4 * h + 1] += inside * y;
      dx[4 * h + 2] += inside;
      dx[4 * h + 3] += slope * units[h];
    }
    dx[NET_SIZE - 1] += slope;
  }
  return sum / rows.length;
}

// The loss over all rows, and how many of them are taken for the other class.
function netLoss(w, { points, classes }) {
  let [sum, wrong] = [0, 0];
  for (let k = 0; k < classes.length; k++) {
    const z = classes[k] * netOutput(w, points[2 * k], points[2 * k + 1]);
    sum += Math.max(-z, 0) + Math.log1p(Math.exp(-Math.abs(z)));
    if (!(z > 0)) wrong++;
  }
  return { loss: sum / classes.length, wrong };
}
