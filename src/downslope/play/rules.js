// The rules that there are, from what is told of each besides what its name says.

function ruleEntries(told) {
  return Object.fromEntries(Object.entries(told).map(([name, each]) => [name, ruleEntry(name, each)]));
}

// A rule as it is needed: `family` and `dialect`, how it is written in `python` if it can be, its `numbers`, which of them are
// `demanded`, the `ranges` of all, its `flags`, and the `forms` of its program by the flags that are on. One that has no weight
// decay of its own `decays` by an option.
function ruleEntry(name, told) {
  const [family, dialect = "note"] = name.split(".").reverse();
  const python = `downslope.${dialect === "note" ? "" : "dialects."}${name}`;
  const decays = takesDecay(told.numbers);
  const numbers = { ...told.numbers, ...(decays ? { weight_decay: 0 } : {}) };
  const flags = { ...told.flags, ...(decays ? { decoupled: false } : {}) };
  const ranges = Object.fromEntries(Object.keys(numbers).map((key) => [key, READER.endsOf(key)]));
  for (const { code } of Object.values(told.forms)) {
    code.point ??= null;
    code.start ??= beginning(code.states ?? {}, code.scalars ?? {});
  }
  return { family, dialect, python, demanded: [], ...told, numbers, flags, decays, ranges: { ...ranges, ...told.ranges } };
}

// What makes the states before the first step: of each is known a number, the name of one, or `x` for the weights as they are.
function beginning(states, scalars) {
  const array = (x, value) => (value === "x" ? Float64Array.from(x) : new Float64Array(x.length).fill(value));
  return (x, numbers) => Object.fromEntries([
    ...Object.entries(states).map(([name, value]) => [name, array(x, numbers[value] ?? value)]),
    ...Object.entries(scalars).map(([name, value]) => [name, Float64Array.of(value)]),
  ]);
}
