// How large a learning rate times a curvature may be: the limit of a linear recurrence, whose coefficients are those that
// were read off the formula of the rule.

const LATE = 1e18; // the number of a step by which all that fades has faded

// The largest size of an eigenvalue of a square matrix: that of one or two rows is known, others are squared again and again.
function radius(matrix, size) {
  if (size === 1) return Math.abs(matrix[0]);
  if (size === 2) {
    const [a, b, c, d] = matrix;
    const [middle, apart] = [(a + d) / 2, ((a - d) / 2) ** 2 + b * c];
    return apart >= 0 ? Math.abs(middle) + Math.sqrt(apart) : Math.sqrt(middle * middle - apart);
  }
  let now = Float64Array.from(matrix);
  let next = new Float64Array(size * size);
  let log = 0;
  for (let k = 0; k < 46; k++) {
    let norm = 0;
    for (const value of now) norm = Math.max(norm, Math.abs(value));
    if (!(norm > 0) || norm === Infinity) return norm;
    log += Math.log(norm) / 2 ** k;
    for (let k = 0; k < now.length; k++) now[k] /= norm;
    next.fill(0);
    for (let i = 0; i < size; i++) {
      for (let m = 0; m < size; m++) for (let j = 0; j < size; j++) next[i * size + j] += now[i * size + m] * now[m * size + j];
    }
    [now, next] = [next, now];
  }
  return Math.exp(log);
}

// The scalar states of a rule once they no longer change. Each fades towards its end by a factor per step, which two steps
// say, and so where it ends; those that depend on others follow a round later.
function settledScalars({ code }, numbers) {
  const x = new Float64Array(1);
  const states = code.start(x, numbers);
  const values = () => Object.values(states).map((state) => state[0]);
  for (let round = 0; round < 40; round++) {
    const before = values();
    code.step(x, new Float64Array(1), states, numbers, LATE);
    const after = values();
    code.step(x, new Float64Array(1), states, numbers, LATE);
    Object.values(states).forEach((state, k) => {
      const [first, next] = [after[k] - before[k], state[0] - after[k]];
      if (next !== first) state[0] = before[k] - (first * first) / (next - first);
    });
  }
  return states;
}

// The limit of a rule's learning rate times the curvature: { limit, gain, held }, or null where none can be read off.
function limitOf(form, numbers) {
  const key = Object.values(numbers).join();
  if (form.limitKey !== key) Object.assign(form, { limit: foundLimit(form, numbers), limitKey: key });
  return form.limit;
}

function foundLimit(form, numbers) {
  const { reason, held, size, inputs, fill } = form.recurrence;
  if (reason || !(numbers.lr > 0)) return null;
  let scalars = null;
  const values = inputs.map((name) => {
    if (name === "t") return LATE;
    if (name in numbers) return numbers[name];
    scalars ??= settledScalars(form, numbers);
    return scalars[name][0];
  });
  const table = fill(...values, new Float64Array(size * (size + 2)));
  const width = size + 1;
  const matrix = new Float64Array(size * size);
  const at = (product) => {
    const curvature = product / numbers.lr;
    for (let i = 0; i < size; i++) {
      for (let j = 0; j < size; j++) {
        matrix[i * size + j] = table[i * width + j] + curvature * table[i * width + size] * table[size * width + j];
      }
    }
    return radius(matrix, size);
  };
  return { limit: firstAtOne(at), gain: -table[size] / numbers.lr, held: held.length > 0 };
}

// The first size at which a radius reaches 1; 0 if it is never below, infinite if it always is.
function firstAtOne(at) {
  let [low, high] = [0, 1e-9];
  while (at(high) < 1) {
    low = high;
    high *= 10 ** 0.1;
    if (high > 1e9) return Infinity;
  }
  if (!low) return 0;
  for (let k = 0; k < 60; k++) {
    const middle = (low + high) / 2;
    if (at(middle) >= 1) high = middle;
    else low = middle;
  }
  return high;
}
