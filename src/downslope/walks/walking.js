// Walks, computed whole: a path is a function of its settings, and everything shown is looked up in it.

// The way of one rule: where it is before the first step and after each.
function walked(rule, numbers, surface, start, steps, noise) {
  const size = start.length;
  const x = Float64Array.from(start);
  const dx = new Float64Array(size);
  const at = new Float64Array(size);
  const states = rule.start(x, numbers);
  const points = new Float64Array((steps + 1) * size);
  const losses = new Float64Array(steps + 1);
  const out = new Float64Array(1 + size);
  points.set(x);
  losses[0] = surface.height(x, out)[0];
  for (let t = 1; t <= steps; t++) {
    if (rule.point) {
      rule.point(at, x, states, numbers, t);
      surface.height(at, out);
    } else surface.height(x, out);
    for (let i = 0; i < size; i++) dx[i] = out[1 + i] + (noise ? noise[(t - 1) * size + i] : 0);
    rule.step(x, dx, states, numbers, t);
    points.set(x, t * size);
    losses[t] = surface.height(x, out)[0];
  }
  return { points, losses };
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

// The learning rate with which a rule is soonest at the goal and stays there, or ends lowest, without leaving the map.
function bestRate(rule, numbers, surface, start, steps, noise, rates, goal) {
  let best = null;
  for (const rate of rates) {
    const { points, losses } = walked(rule, { ...numbers, lr: rate }, surface, start, steps, noise);
    let end = -Infinity;
    for (let t = losses.length - Math.max(1, Math.floor(losses.length / 10)); t < losses.length; t++) {
      end = losses[t] <= end ? end : losses[t];
    }
    const arrived = arrival(losses, goal, surface.bottomless);
    const off = leaves(points, surface.ranges, start, surface.bottomless ? Math.min(arrived + 1, losses.length) : losses.length);
    const found = [Number(off), arrived, Number.isNaN(end) ? Infinity : end];
    const first = best && found.findIndex((value, k) => value !== best.found[k]);
    if (!best || (first >= 0 && found[first] < best.found[first])) best = { rate, found };
  }
  return best.rate;
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
