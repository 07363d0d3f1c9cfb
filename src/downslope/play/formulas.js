// Formulas as MathML, from the trees that the rules come with: as symbols, or with the numbers of a step put in.

const MATHML = "http://www.w3.org/1998/Math/MathML";
const GREEK = { alpha: "α", beta: "β", gamma: "γ", delta: "δ", eps: "ε", epsilon: "ϵ", eta: "η", theta: "θ", kappa: "κ", lambda: "λ", mu: "μ", nu: "ν", pi: "π", rho: "ρ", sigma: "σ", tau: "τ", phi: "φ", psi: "ψ", omega: "ω" };

function math(tag, ...inside) {
  const made = document.createElementNS(MATHML, tag);
  made.append(...inside);
  return made;
}
const row = (...inside) => math("mrow", ...inside);
const mo = (text) => math("mo", text);
const fenced = (open, node, close) => row(mo(open), node, mo(close));

function thin() {
  const space = math("mspace");
  space.setAttribute("width", "0.17em");
  return space;
}

// A part of a formula: what it looks like, how tightly it binds, and whether it begins with a minus or a digit.
const part = (node, binding = 10, first = "") => ({ node, binding, first });
const least = (binding, { node, binding: own }) => (own < binding ? fenced("(", node, ")") : node);
const infix = (mark, binding) => (a, b) => part(row(least(binding, a), mo(mark), b.first === "minus" ? fenced("(", b.node, ")") : least(binding + 1, b)), binding, a.first);
const named = (word) => (...args) => part(row(math("mi", word), mo("("), ...args.flatMap(({ node }, k) => (k ? [mo(","), node] : [node])), mo(")")));
const power = (exponent) => (a) => part(math("msup", least(10, a), math("mn", exponent)), 9);

const WRITTEN = {
  or: infix("∨", 1),
  and: infix("∧", 2),
  not: (a) => part(row(mo("¬"), least(3, a)), 3),
  lt: infix("<", 4),
  le: infix("≤", 4),
  gt: infix(">", 4),
  ge: infix("≥", 4),
  eq: infix("=", 4),
  ne: infix("≠", 4),
  add: infix("+", 5),
  sub: infix("−", 5),
  mul(a, b) {
    const second = b.first === "minus" ? fenced("(", b.node, ")") : least(7, b);
    return part(row(least(6, a), b.first === "digit" ? mo("·") : thin(), second), 6, a.first);
  },
  neg: (a) => part(row(mo("−"), least(7, a)), 7, "minus"),
  div: (a, b) => part(math("mfrac", row(a.node), row(b.node)), 8),
  pow: (a, b) => part(math("msup", least(10, a), row(b.node)), 9),
  square: power("2"),
  cube: power("3"),
  fourth: power("4"),
  where: (condition, a, b) => part(row(a.node, math("mtext", ` ${say("math.if")} `), condition.node, math("mtext", `, ${say("math.else")} `), b.node), 0),
  abs: (a) => part(fenced("|", a.node, "|")),
  sqrt: (a) => part(math("msqrt", a.node)),
  maximum: named("max"),
  minimum: named("min"),
  ...Object.fromEntries(["exp", "expm1", "log", "tanh", "sin", "cos", "sign"].map((word) => [word, named(word)])),
};

// A name as its author means it: `beta1` is a β with a 1 below, `m_hat` an m with a hat, and so on.
function symbol(name, time = "", prime = false) {
  const stem = name.replace(/_hat$/, "");
  let [, letters, digits, word] = /^([A-Za-z]+)(\d*)(?:_(\w+))?$/.exec(stem) ?? [null, stem, "", ""];
  if (!(letters.length === 1 || letters === "dx" || letters in GREEK)) [, letters, digits, word] = /^(.*?)(\d*)()$/.exec(stem);
  let node = math("mi", GREEK[letters] ?? letters.replaceAll("_", " "));
  if (letters.length > 1 && !(letters in GREEK) && letters !== "dx") node.setAttribute("mathvariant", "normal");
  if (stem !== name) node = math("mover", node, mo("^"));
  if (prime) node = math("msup", node, mo("′"));
  const below = [digits, word, time].filter(Boolean);
  if (below.length) node = math("msub", node, row(...below.flatMap((text, k) => [...(k ? [mo(",")] : []), text === "t-1" ? row(math("mi", "t"), mo("−"), math("mn", "1")) : math(/\d/.test(text) ? "mn" : "mi", text)])));
  return node;
}

// A number as a part: a minus, or a power of ten, needs brackets in places.
function numberPart(value) {
  const text = short(value);
  const node = math("mn", text);
  if (text.startsWith("−")) return part(node, 6, "minus");
  return part(node, /[×⁰¹²³⁴⁵⁶⁷⁸⁹]/.test(text) ? 6 : 10, "digit");
}

// The part of a tree, whose leaves are written by `leaf(name, line)`.
function partOf(tree, leaf) {
  if (typeof tree === "string") return leaf(tree, -1);
  if (typeof tree === "number") return numberPart(tree);
  const [op, ...args] = tree;
  if (typeof op === "number") return leaf("", op);
  return WRITTEN[op](...args.map((arg) => partOf(arg, leaf)));
}

// The tree of a formula's text, in which `_0` is the value of the first line.
function treeIn(text) {
  const names = new Set(text.match(/[A-Za-z_]\w*\b(?!\()/g));
  const tree = ({ op, args, value }) => {
    if (op === "constant") return value;
    if (op === "input") return /^_\d/.test(value) ? [Number(value.slice(1))] : value;
    return [op, ...args.map(tree)];
  };
  return tree(READER.parse(text, [...names]));
}

// The lines of a rule's program: name, tree, and how it changes. Those that came as texts are read when they are asked for.
function treesOf(form) {
  form.trees ??= form.lines.map(([name, text, time]) => [name, typeof text === "string" ? treeIn(text) : text, time]);
  return form.trees;
}

// The tree as READER has it; a line is an input of its own.
function treeOf(tree) {
  if (typeof tree === "string") return { op: "input", args: [], value: tree };
  if (typeof tree === "number") return { op: "constant", args: [], value: tree };
  const [op, ...args] = tree;
  return typeof op === "number" ? { op: "input", args: [], value: op } : { op, args: args.map(treeOf) };
}

const leavesOf = (tree) => (Array.isArray(tree) ? (typeof tree[0] === "number" ? [tree[0]] : tree.slice(1).flatMap(leavesOf)) : typeof tree === "string" ? [tree] : []);

// The lines of a rule's program, each with what it takes and a function that works it out.
function linesOf(form) {
  form.reading ??= treesOf(form).map(([name, tree, time]) => {
    const inputs = [...new Set(leavesOf(tree))];
    return { name, tree, time, inputs, value: READER.loss(treeOf(tree), inputs) };
  });
  return form.reading;
}

// Which part of a walk a name stands for: the slope, inertia, the shoes or the whole step.
function roleOf(walker, name) {
  const held = walker.form.recurrence.held ?? [];
  const { reading } = walker.form;
  const from = (wanted, seen = new Set()) => {
    if (seen.has(wanted)) return [];
    seen.add(wanted);
    const lines = reading.filter((line) => line.name === wanted);
    return [wanted, ...lines.flatMap((line) => line.inputs.flatMap((input) => from(typeof input === "number" ? reading[input].name : input, seen)))];
  };
  if (name === "dx") return "slope";
  if (name === "x" || name === "lr" || name === "ahead") return "step";
  const all = name in walker.numbers ? [name] : from(name);
  const states = walker.places.map((place) => place.name);
  if (all.some((each) => held.includes(each))) return "shoes";
  if (all.some((each) => states.includes(each))) return "inertia";
  const used = reading.filter((line) => line.name !== "x" && line.inputs.includes(name)).map((line) => roleOf(walker, line.name));
  return used[0] ?? "step";
}
