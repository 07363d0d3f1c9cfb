// Reads a formula or a rule that somebody typed, by the grammars that language/grammar.py and language/lines.py give, with
// the same limits and the same answers. A tree is made of { op, args } and of { op: "constant" or "input", value }.

class GrammarError extends Error {
  constructor(place, problem) {
    super(problem);
    this.place = place;
    this.problem = problem;
  }
}

const has = (table, key) => Object.prototype.hasOwnProperty.call(table, key);
const KINDS = ["blank", "line", "number", "name", "sign"];
const PARTS = ["[ \\t\\r]+", "\\n", "(?:[0-9]+(?:\\.[0-9]*)?|\\.[0-9]+)(?:[eE][+-]?[0-9]+)?", "[A-Za-z_][A-Za-z0-9_]*"];

// What a text is made of besides blanks, and its end.
function tokens(text, signs) {
  const pattern = new RegExp([...PARTS, signs].map((part) => `(${part})`).join("|"), "y");
  const found = [];
  let place = 0;
  while (place < text.length) {
    pattern.lastIndex = place;
    const match = pattern.exec(text);
    if (!match) throw new GrammarError(place, `unexpected '${String.fromCodePoint(text.codePointAt(place))}'`);
    const kind = KINDS.find((_, k) => match[k + 1] !== undefined);
    if (kind !== "blank") found.push({ kind, text: match[0] === "^" ? "**" : match[0], place });
    place += match[0].length;
  }
  found.push({ kind: "end", text: "", place });
  return found;
}

const constant = (value) => ({ op: "constant", args: [], value });
const isNumber = (tree) => tree.op === "constant";
const isKnown = (tree) => tree.op === "constant" || tree.op === "truth";
const isTruth = (tree) => tree.op === "truth" || (has(OPERATIONS, tree.op) && OPERATIONS[tree.op].truth);

// A condition that is known already, in the language of formulas.
const settled = (tree) =>
  tree.op === "truth" ? { op: "eq", args: [constant(0), constant(tree.value ? 0 : 1)] } : tree;

// Reads pieces of a text from left to right. `names` has the tree of each name that is known, or of one that has become
// known when it is asked for with `unknown`; `chosen` goes on behind an operation that `if` may follow.
function reading(pieces, names, unknown, chosen = (value) => value) {
  let index = 0;

  const next = () => pieces[index];
  const take = () => pieces[index++];
  const fail = (problem, place = next().place) => {
    throw new GrammarError(place, problem);
  };

  function finite(tree, place) {
    if (isNumber(tree) && !Number.isFinite(tree.value)) fail("this is not a finite number", place);
    return tree;
  }

  function applied(op, place, ...values) {
    OPERATIONS[op].takes.forEach((kind, k) => {
      const [found, needed] = kind === "truth" ? ["number", "truth value"] : ["truth value", "number"];
      if (isTruth(values[k]) !== (kind === "truth")) fail(`a ${found} where a ${needed} is needed`, place);
    });
    if (values.every(isKnown)) {
      const memory = Float64Array.of(0, ...values.map((tree) => tree.value));
      OPERATIONS[op].value(memory, 0, 1, 2, 3)();
      return finite({ op: OPERATIONS[op].truth ? "truth" : "constant", args: [], value: memory[0] }, place);
    }
    const args = values.map(settled);
    if (op === "pow" && isNumber(args[1]) && has(POWERS, args[1].value))
      return { op: POWERS[args[1].value], args: [args[0]] };
    return { op, args };
  }

  function close(bracket) {
    if (next().text !== bracket) fail(`expected ${bracket}`);
    take();
  }

  const formula = (depth = 0) => chosen(operation(1, depth), depth);

  function operation(least, depth) {
    let value = signed(depth);
    while (has(BINARY, next().text) && BINARY[next().text][0] >= least) {
      const { text: sign, place } = take();
      const [binding, op] = BINARY[sign];
      value = applied(op, place, value, operation(binding + 1, depth));
    }
    return value;
  }

  function signed(depth = 0) {
    if (depth > DEEPEST) fail(`the formula is nested more than ${DEEPEST} deep`);
    const { text: sign, place } = next();
    if (sign === "+" || sign === "-" || sign === "~") {
      take();
      const value = signed(depth + 1);
      const negative = applied(sign === "~" ? "not" : "neg", place, value);
      return sign === "+" ? value : negative;
    }
    const value = atom(depth);
    if (next().text !== "**") return value;
    const power = take().place;
    return applied("pow", power, value, signed(depth + 1));
  }

  function atom(depth) {
    const { kind, text: word, place } = next();
    if (kind !== "number" && kind !== "name" && word !== "(") fail("expected a number, a name or (");
    const name = take();
    if (kind === "number") return finite(constant(Number(word)), place);
    if (word === "(") {
      const value = formula(depth + 1);
      close(")");
      return value;
    }
    if (names.has(word)) return names.get(word);
    return CALLED.includes(word) ? call(word, place, depth) : unknown(name);
  }

  function call(word, place, depth) {
    close("(");
    const values = [formula(depth + 1)];
    while (next().text === ",") {
      take();
      values.push(formula(depth + 1));
    }
    close(")");
    const wanted = OPERATIONS[word].takes.length;
    if (values.length !== wanted) fail(`${word} takes ${wanted} value(s), got ${values.length}`, place);
    return applied(word, place, ...values);
  }

  return { next, take, fail, applied, formula, signed };
}

const input = (value) => ({ op: "input", args: [], value });
const known = (...inputs) =>
  new Map([...Object.entries(CONSTANTS).map(([name, value]) => [name, constant(value)]), ...inputs.map((name) => [name, input(name)])]);

function checkLength(text, what, longest) {
  const length = [...text].length;
  if (length > longest) throw new GrammarError(longest, `the ${what} has ${length} characters; at most ${longest} are read`);
}

function parse(text, variables) {
  checkLength(text, "formula", LONGEST);
  const names = known(...variables);
  const pieces = tokens(text, SIGNS).filter(({ kind }) => kind !== "line");
  const { next, fail, formula } = reading(pieces, names, (name) =>
    fail(`there is no '${name.text}'; there are ${[...names.keys(), ...CALLED].join(", ")}`, name.place),
  );
  if (next().kind === "end") fail("the formula is empty");
  const tree = formula();
  if (next().kind !== "end") fail("expected an operator");
  if (isTruth(tree)) fail("the formula is a truth value, not a number", 0);
  return tree;
}

// Trees as steps on a memory: first the variables, then whatever the trees are made of, once each and after its arguments.
function laidOut(trees, variables) {
  const cells = variables.map(input);
  const places = new Map();
  const place = (part) => {
    if (part.op === "input") return variables.indexOf(part.value);
    if (!places.has(part)) {
      const args = part.args.map(place);
      places.set(part, cells.push({ op: part.op, args, value: part.value }) - 1);
    }
    return places.get(part);
  };
  return { cells, roots: trees.map(place) };
}

const steps = (cells, memory, wanted = () => true) =>
  cells.flatMap(({ op, args }, k) => (has(OPERATIONS, op) && wanted(k) ? [OPERATIONS[op].value(memory, k, ...args)] : []));

function begun(cells, size) {
  const memory = new Float64Array(size);
  cells.forEach(({ op, value }, k) => {
    if (op === "constant") memory[k] = value;
  });
  return memory;
}

function loss(tree, variables) {
  const { cells, roots } = laidOut([tree], variables);
  const [root] = roots;
  const memory = begun(cells, cells.length);
  const run = steps(cells, memory);
  return (...point) => {
    for (let k = 0; k < variables.length; k++) memory[k] = point[k];
    for (let k = 0; k < run.length; k++) run[k]();
    return memory[root];
  };
}

// An operation; of numbers alone it is a number.
function made(op, args) {
  if (op === "where" && isNumber(args[0])) return args[args[0].value ? 1 : 2];
  if (op === "mul" && args.some((arg) => arg.value === 1)) return args.find((arg) => arg.value !== 1) ?? args[0];
  if (!args.every(isNumber)) return { op, args };
  const memory = Float64Array.of(0, ...args.map((arg) => arg.value));
  OPERATIONS[op].value(memory, 0, 1, 2, 3)();
  return constant(memory[0]);
}

// The tree of a derivative; null where a tree does not change with the variable. In what is known of an operation, a, b and c
// are its arguments, e, f and g the slopes of these, and r is itself.
function derivative(tree, by, seen = new Map()) {
  if (tree.op === "input") return tree.value === by ? constant(1) : null;
  if (!seen.has(tree)) {
    const { op, args } = tree;
    const slopes = args.map((arg) => derivative(arg, by, seen));
    const key = slopes.map((each) => (each ? 1 : 0)).join("");
    const [a, b, c] = args;
    const [e, f, g] = slopes;
    const letters = { a, b, c, e, f, g, r: tree };
    const grown = (part) => {
      if (typeof part === "string") return letters[part];
      return typeof part === "number" ? constant(part) : made(part[0], part.slice(1).map(grown));
    };
    seen.set(tree, has(OPERATIONS, op) && has(OPERATIONS[op].slopes, key) ? grown(OPERATIONS[op].slopes[key]) : null);
  }
  return seen.get(tree);
}

// A function of the variables and an array, which it fills with the values of trees.
function filling(trees, variables) {
  const { cells, roots } = laidOut(trees.map((tree) => tree ?? constant(0)), variables);
  const memory = begun(cells, cells.length);
  const run = steps(cells, memory);
  return (...point) => {
    const out = point[variables.length];
    for (let k = 0; k < variables.length; k++) memory[k] = point[k];
    for (let k = 0; k < run.length; k++) run[k]();
    for (let k = 0; k < roots.length; k++) out[k] = memory[roots[k]];
    return out;
  };
}

const slopes = (tree, variables) => variables.map((name) => tree && derivative(tree, name));
const slope = (tree, variables) => filling([tree, ...slopes(tree, variables)], variables);
const curvature = (tree, variables) => filling(slopes(tree, variables).flatMap((each) => slopes(each, variables)), variables);
