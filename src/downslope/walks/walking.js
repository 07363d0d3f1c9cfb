// Walks, computed whole: a path is a function of its settings, and everything shown is looked up in it.

// Room for the way of one rule: where it is before the first step and after each. With `kept` also for a row of all states
// before the first step and after each, with the place of each in a row, and for gradients where steps are compared to them.
// What else is worked out of a way, when it is asked for, is kept in its `once`, until another way is in its room.
function roomFor(rule, numbers, size, steps, kept) {
  const states = Object.entries(kept ? rule.start(new Float64Array(size), numbers) : {});
  let width = 0;
  const places = states.map(([name, { length }]) => ({ name, length, place: (width += length) - length }));
  const [points, losses] = [new Float64Array((steps + 1) * size), new Float64Array(steps + 1)];
  const [gradients, memory] = [new Float64Array(kept && !rule.response ? steps * size : 0), new Float64Array((steps + 1) * width)];
  return { points, losses, gradients, memory, width, places, kept };
}

// The way of one rule, into the room that there is for it.
function walked(rule, numbers, surface, start, noise, way) {
  const { points, losses, gradients, memory, kept } = way;
  const [size, steps] = [start.length, losses.length - 1];
  way.once = {};
  const x = Float64Array.from(start);
  const dx = new Float64Array(size);
  const at = new Float64Array(size);
  const out = new Float64Array(1 + size);
  const states = rule.start(x, numbers);
  const arrays = kept ? Object.values(states) : [];
  const felt = gradients.length > 0;
  for (let t = 0, place = 0; ; t++) {
    losses[t] = surface.height(x, out)[0];
    for (let i = 0; i < size; i++) points[t * size + i] = x[i];
    for (let k = 0; k < arrays.length; k++) {
      const array = arrays[k];
      for (let i = 0; i < array.length; i++) memory[place++] = array[i];
    }
    if (t === steps) return way;
    if (rule.point) {
      rule.point(at, x, states, numbers);
      surface.height(at, out);
    }
    for (let i = 0; i < size; i++) {
      dx[i] = noise ? out[1 + i] + noise[t * size + i] : out[1 + i];
      if (felt) gradients[t * size + i] = dx[i];
    }
    rule.step(x, dx, states, numbers, t + 1);
  }
}

// A function of a place `t`: how far the step from there moves each weight for each unit of its gradient, with what it
// divides by held still; where steps are no multiples of gradients, the step over the gradient.
function effectiveSteps({ points, gradients, memory, width, places }, rule, numbers, size) {
  const found = new Float64Array(size);
  const axis = (value) => (t) => {
    for (let i = 0; i < size; i++) found[i] = value(t, i);
    return found;
  };
  if (!rule.response) {
    return axis((t, i) => Math.abs(points[(t + 1) * size + i] - points[t * size + i]) / Math.abs(gradients[t * size + i]));
  }
  const inputs = rule.response.inputs.map((name) => {
    if (name === "t") return (t) => t + 1;
    if (name in numbers) return () => numbers[name];
    const after = name.endsWith(" still") ? 1 : 0;
    const { length, place } = places.find((state) => state.name === (after ? name.slice(0, -6) : name));
    return (t, i) => memory[(t + after) * width + place + (i % length)];
  });
  const values = inputs.map(() => 0);
  return axis((t, i) => {
    for (let k = 0; k < inputs.length; k++) values[k] = inputs[k](t, i);
    return rule.response.value(...values);
  });
}

// A function of a place: the learning rate times the largest curvature there, of the surface or, where the rule divides by
// states that are held still, of the surface as scaled by the step from there; NaN where it is not finite.
function sharpnesses(way, rule, numbers, surface, limit) {
  const size = surface.variables.length;
  const last = way.losses.length - 2;
  const at = new Float64Array(size);
  const second = new Float64Array(size * size);
  const effective = effectiveSteps(way, rule, numbers, size);
  return (t) => {
    if (!limit || (limit.held && !limit.gain)) return NaN;
    for (let i = 0; i < size; i++) at[i] = way.points[t * size + i];
    surface.second(at, second);
    const steps = limit.held ? effective(Math.min(t, last)) : null;
    const scale = (i) => (steps ? steps[i] / limit.gain : numbers.lr);
    let largest = second[0] * scale(0);
    if (size > 1) {
      const other = second[3] * scale(1);
      const half = (largest - other) / 2;
      largest = (largest + other) / 2 + Math.sqrt(half * half + second[1] * scale(0) * second[2] * scale(1));
    }
    return Number.isFinite(largest) ? largest : NaN;
  };
}

// The first step from which on losses are at the goal or below; their number where they do not end there.
function arrival(losses, goal, bottomless) {
  if (bottomless) {
    const first = losses.findIndex((loss) => loss <= goal);
    return first < 0 ? losses.length : first;
  }
  let step = losses.length;
  while (step > 0 && losses[step - 1] <= goal) step--;
  return step;
}

// Whether a way leaves the map, before a given step.
function leaves(points, ranges, start, before) {
  const size = start.length;
  for (let k = 0; k < before * size; k++) {
    const [low, high] = ranges[k % size];
    const value = points[k];
    if (!(value >= Math.min(low, start[k % size]) && value <= Math.max(high, start[k % size]))) return true;
  }
  return false;
}

// How a rule does at a learning rate: whether it leaves the map, when it is at the goal to stay, and the highest loss in the
// last tenth of the steps. Of two, the better one is less at the first place where they differ.
function outcome(rule, numbers, surface, start, noise, rate, goal, way) {
  const { points, losses } = walked(rule, { ...numbers, lr: rate }, surface, start, noise, way);
  let end = -Infinity;
  for (let t = losses.length - Math.max(1, Math.floor(losses.length / 10)); t < losses.length; t++) {
    end = losses[t] <= end ? end : losses[t];
  }
  const arrived = arrival(losses, goal, surface.bottomless);
  const off = leaves(points, surface.ranges, start, surface.bottomless ? Math.min(arrived + 1, losses.length) : losses.length);
  return [Number(off), arrived, Number.isNaN(end) ? Infinity : end];
}

// The place of the best outcome, the first of several.
function bestOf(outcomes) {
  return outcomes.reduce((best, found, k) => {
    const first = found.findIndex((value, i) => value !== outcomes[best][i]);
    return first >= 0 && found[first] < outcomes[best][first] ? k : best;
  }, 0);
}

// The learning rate with which a rule is soonest at the goal and stays there, or ends lowest, without leaving the map.
function bestRate(rule, numbers, surface, start, steps, noise, rates, goal) {
  const way = roomFor(rule, numbers, start.length, steps, false);
  return rates[bestOf(rates.map((rate) => outcome(rule, numbers, surface, start, noise, rate, goal, way)))];
}

// Length of the way to the goal or the end, distance of it from the start, how often a step turned back along an axis.
function measured(points, size, steps) {
  let length = 0;
  let turns = 0;
  let distance = 0;
  const before = new Float64Array(size);
  for (let t = 1; t <= steps; t++) {
    let squares = 0;
    for (let i = 0; i < size; i++) {
      const move = points[t * size + i] - points[(t - 1) * size + i];
      squares += move * move;
      if (move * before[i] < 0) turns++;
      before[i] = move;
    }
    length += Math.sqrt(squares);
  }
  for (let i = 0; i < size; i++) distance += (points[steps * size + i] - points[i]) ** 2;
  return { length, distance: Math.sqrt(distance), turns };
}

// Numbers of single precision, as text of base 64.
function singles(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return Float64Array.from(new Float32Array(bytes.buffer));
}
