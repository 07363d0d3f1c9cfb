// Weight decay around a rule, as downslope's options have it: `weight_decay * x` added to the gradient where it is taken, or
// decoupled from it, `lr * weight_decay * x` taken from the weights before the step.

function takesDecay(numbers) {
  return "lr" in numbers && !("weight_decay" in numbers);
}

// The form of a rule with decay around it, made once.
function decaying(form, decoupled) {
  const key = decoupled ? "decoupled" : "coupled";
  form[key] ??= { code: decayingCode(form.code, decoupled), response: form.response, recurrence: decayingRecurrence(form.recurrence, decoupled), lines: decayingLines(treesOf(form), decoupled) };
  return form[key];
}

function decayingCode(code, decoupled) {
  let place = new Float64Array(0);
  return {
    ...code,
    step(x, dx, states, numbers, t) {
      const { lr, weight_decay } = numbers;
      const decay = decoupled ? lr * weight_decay : weight_decay;
      if (decay === 0) return code.step(x, dx, states, numbers, t);
      if (decoupled) {
        for (let i = 0; i < x.length; i++) x[i] -= decay * x[i];
        return code.step(x, dx, states, numbers, t);
      }
      if (place.length !== x.length) place = new Float64Array(x.length);
      if (code.point) code.point(place, x, states, numbers);
      else place.set(x);
      for (let i = 0; i < x.length; i++) place[i] = dx[i] + decay * place[i];
      code.step(x, place, states, numbers, t);
    },
  };
}

// The coefficients of the recurrence: `x` shrinks before it enters, or the gradient grows with the place where it is taken.
function decayingRecurrence({ reason, held, size, inputs, fill }, decoupled) {
  if (reason || (held.length && !decoupled)) return { reason: reason ?? "the decay is divided by what is held still, too", held };
  const width = size + 1;
  return {
    held, size, inputs: [...inputs, "lr", "weight_decay"],
    fill(...values) {
      const [lr, decay, table] = values.splice(-3);
      fill(...values, table);
      for (let i = 0; i < size; i++) {
        if (decoupled) table[i * width] *= 1 - lr * decay;
        else for (let j = 0; j < size; j++) table[i * width + j] += table[i * width + size] * decay * table[size * width + j];
      }
      return table;
    },
  };
}

// The lines of the formula: one more before all but where the gradient is taken, and what it gives in place of `x` or `dx`.
function decayingLines(lines, decoupled) {
  const first = lines[0][0] === "ahead" ? 1 : 0;
  const [name, added] = decoupled ? ["x", ["sub", "x", ["mul", ["mul", "lr", "weight_decay"], "x"]]] : ["dx", ["add", "dx", ["mul", "weight_decay", first ? lines[0][1] : "x"]]];
  const after = (tree) => {
    if (tree === name) return [first];
    if (!Array.isArray(tree)) return tree;
    if (typeof tree[0] === "number") return [tree[0] + (tree[0] >= first)];
    return [tree[0], ...tree.slice(1).map(after)];
  };
  return [...lines.slice(0, first), [name, added, 2], ...lines.slice(first).map(([left, tree, time]) => [left, after(tree), time])];
}
