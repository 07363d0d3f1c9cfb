// Reads a rule that somebody typed, line by line, and makes of it what targets/javascript.py writes of a rule.

function rangeOf(name) {
  if (has(USUAL, name)) return USUAL[name];
  return name.startsWith("beta") ? FRACTION : ANY;
}

// The lowest and the highest number that a hyperparameter may be; null where there is no end.
function endsOf(name) {
  const { low, high, closed } = rangeOf(name);
  const end = (value) => (Number.isFinite(value) ? value : null);
  return [end(low), end(closed ? high : high * (1 - Number.EPSILON / 2))];
}

// What a text is made of; `;` ends a line, and an end of line between brackets does not.
function pieces(text) {
  let depth = 0;
  return tokens(text, RULE_SIGNS).flatMap((token) => {
    depth += (token.text === "(") - (token.text === ")");
    if (token.text === ";") return [{ kind: "line", text: "", place: token.place }];
    return token.kind !== "line" || depth <= 0 ? [token] : [];
  });
}

// The names that lines set to a number, by their places in the text, and those that are set to a formula.
function settings(read) {
  const [numbers, others] = [new Map(), new Set()];
  const ends = (k) => read[k]?.kind === "number" && ["line", "end"].includes(read[k + 1]?.kind);
  for (let k = 0; k + 1 < read.length; k++) {
    if (read[k].kind !== "name" || !has(SETTING, read[k + 1].text) || (k > 0 && read[k - 1].kind !== "line")) continue;
    const signed = ["+", "-"].includes(read[k + 2].text);
    const plain = read[k + 1].text === "=" && ends(k + 2 + signed) && !["x", "dx"].includes(read[k].text);
    if (plain) numbers.set(read[k].place, read[k].text);
    else if (read[k + 1].text !== "=" || !has(TRUTHS, read[k + 2].text)) others.add(read[k].text);
  }
  return [numbers, others];
}

// The names of the inputs that a tree is made of.
function inputsOf(tree) {
  const seen = new Set();
  const see = (part) => {
    if (seen.has(part)) return;
    seen.add(part);
    part.args.forEach(see);
  };
  see(tree);
  return [...seen].flatMap(({ op, value }) => (op === "input" ? [value] : []));
}

// Each choice of flags, their defaults first.
function choices(flags) {
  return Object.entries(flags).reduce((found, [name, usual]) => found.flatMap((each) => [usual, !usual].map((value) => ({ ...each, [name]: value }))), [{}]);
}

// The rule of a text: its states, hyperparameters and flags in the order of their use, what states start with unless it is 0,
// the trees of what is new, and [name, tree] of each line. It is that of a choice of all flags; without one the text is read
// for every choice, and given for what flags are by themselves.
function parseRule(text, given) {
  checkLength(text, "rule", LONGEST_RULE);
  const read = readRule(text, given ?? {});
  if (!given) choices(read.flags).slice(1).forEach((other) => readRule(text, other));
  return read;
}

function readRule(text, given) {
  const read = pieces(text);
  const names = known("x", "dx", "t");
  const [plain, others] = settings(read);
  const numbers = new Set(plain.values());
  const [states, starts, hyperparameters, flags, lines] = [[], {}, new Map(), new Map(), []];
  let lookahead = null;
  const taken = (name) => TAKEN.includes(name) || name.startsWith("_");
  const { next, take, fail, applied, formula, signed } = reading(read, names, unknown, chosen);
  const start = names.get("x");

  // A state if a line sets it later, else one of the usual hyperparameters.
  function unknown({ text: name, place }) {
    if (flags.has(name) || has(TRUTHS, name)) fail("a choice stands only behind if, as in a if correction else b", place);
    if (TAKEN.includes(name)) fail("expected a number, a name or (", place);
    if (others.has(name) && !taken(name)) states.push(name);
    else if (has(DEFAULTS, name) && !numbers.has(name)) hyperparameters.set(name, DEFAULTS[name]);
    else if (numbers.has(name)) fail(`${name} gets its number in a line below; put that line above`, place);
    else fail(`there is no '${name}'; a line ${name} = 0.5 above would make it a hyperparameter`, place);
    names.set(name, input(name));
    return names.get(name);
  }

  function set(name, value) {
    names.set(name, value);
    lines.push([name, settled(value)]);
  }

  function line() {
    const { kind, text: name, place } = take();
    const sign = has(SETTING, next().text) ? take() : null;
    if (kind !== "name" || !sign) fail("expected a line such as x = ..., or return ...", place);
    if (name === "lookahead" && sign.text === "=") lookAhead(place);
    else if (taken(name)) fail(`'${name}' cannot be set; choose another name`, place);
    else if (plain.has(place)) setToNumber(name, place);
    else if (sign.text === "=" && has(TRUTHS, next().text)) setToTruth(name, place, TRUTHS[take().text]);
    else {
      const op = SETTING[sign.text];
      const old = op && (names.get(name) ?? unknown({ text: name, place }));
      const right = formula();
      const value = op ? applied(op, sign.place, old, right) : right;
      if (isTruth(value) && ["x", "dx", ...states].includes(name)) fail("a truth value where a number is needed", sign.place);
      set(name, value);
    }
    if (next().kind !== "line" && next().kind !== "end") fail("expected an operator");
  }

  function lookAhead(place) {
    const value = formula();
    const used = inputsOf(value);
    const isMeant = !isTruth(value) && used.some((each) => states.includes(each)) && used.every((each) => states.includes(each) || hyperparameters.has(each));
    if (!isMeant) fail("lookahead is made of states and hyperparameters, as they are before the step", place);
    lookahead = value;
  }

  function setToNumber(name, place) {
    if (names.has(name) && others.has(name)) fail(`${name} begins with a number only above all other lines that name it`, place);
    if (names.has(name)) fail(`${name} has a number already; give it one once, in a line above`, place);
    const { value } = signed();
    if (others.has(name)) {
      states.push(name);
      starts[name] = value;
      names.set(name, input(name));
      return;
    }
    const { low, high, closed, words } = rangeOf(name);
    if (!(low <= value && (value < high || (closed && value === high)))) fail(`${name} must be ${words}`, place);
    hyperparameters.set(name, value);
    names.set(name, input(name));
  }

  function setToTruth(name, place, usual) {
    if (has(DEFAULTS, name) || names.has(name) || flags.has(name) || others.has(name) || numbers.has(name)) {
      fail(`${name} is something else too; give the choice a name of its own`, place);
    }
    if (flags.size === MOST_FLAGS) fail(`a rule has at most ${MOST_FLAGS} choices`, place);
    flags.set(name, usual);
  }

  // A value, or one of two by a flag. Both are read, so that states are the same for each choice.
  function chosen(value, depth) {
    if (next().text !== "if") return value;
    const word = take();
    const wanted = next().text !== "not";
    if (!wanted) take();
    if (!flags.has(next().text)) fail("behind if stands a choice, as correction = True above makes one; numbers are compared by where");
    const { text: name } = take();
    if (next().text !== "else") fail("expected else");
    take();
    const other = formula(depth + 1);
    if (isTruth(value) !== isTruth(other)) fail("a number and a truth value cannot take each other's place", word.place);
    return (given[name] ?? flags.get(name)) === wanted ? value : other;
  }

  // The new weights, and the names of all states or of none.
  function returned({ place }) {
    const value = formula();
    if (isTruth(value)) fail("a truth value where a number is needed", place);
    set("x", value);
    const named = new Set();
    while (next().text === ",") {
      take();
      if (!states.includes(next().text)) fail("behind the new weights only the names of states are returned");
      named.add(take().text);
    }
    if (named.size && named.size < states.length) fail(`return all states or none: ${states.join(", ")}`, place);
    while (next().kind === "line") take();
    if (next().kind !== "end") fail("nothing can follow what is returned");
  }

  while (next().kind !== "end") {
    if (next().kind === "line") take();
    else if (next().text === "return") returned(take());
    else line();
  }
  if (names.get("x") === start) fail("x never gets a new value: end with x = ... or return ...");
  return {
    states,
    starts,
    lookahead,
    hyperparameters: Object.fromEntries(hyperparameters),
    flags: Object.fromEntries(flags),
    ranges: Object.fromEntries([...hyperparameters.keys()].map((name) => [name, rangeOf(name)])),
    outputs: ["x", ...states].map((name) => names.get(name)),
    lines,
  };
}

// What writes the place of the gradient into an array.
function pointing({ states, hyperparameters, lookahead }) {
  const numbers = Object.keys(hyperparameters);
  const place = loss({ op: "add", args: [input("x"), lookahead] }, ["x", ...states, ...numbers]);
  return (at, x, remembered, given) => {
    for (let i = 0; i < x.length; i++) at[i] = place(x[i], ...states.map((state) => remembered[state][i]), ...numbers.map((name) => given[name]));
  };
}

// A rule that has been read, as the object that targets/javascript.py writes of one. What is not the same for all weights is
// worked out for each of them, the rest once a step, all in the order of the text.
function stepping(rule, name) {
  const { states, starts, hyperparameters, ranges, outputs } = rule;
  const numbers = Object.keys(hyperparameters);
  const variables = ["x", "dx", ...states, "t", ...numbers];
  const { cells, roots } = laidOut(outputs, variables);
  const memory = begun(cells, cells.length);
  const perWeight = [];
  cells.forEach(({ args }, k) => (perWeight[k] = k < 2 + states.length || args.some((arg) => perWeight[arg])));
  const run = (each) => steps(cells, memory, (k) => perWeight[k] === each);
  const [once, always] = [run(false), run(true)];
  const clock = 2 + states.length;
  return {
    name,
    hyperparameters,
    ranges,
    start: (x) => Object.fromEntries(states.map((state) => [state, new Float64Array(x.length).fill(starts[state] ?? 0)])),
    step(x, dx, remembered, given, t) {
      const arrays = [x, ...states.map((state) => remembered[state])];
      memory[clock] = t;
      for (let k = 0; k < numbers.length; k++) memory[clock + 1 + k] = given[numbers[k]];
      for (let k = 0; k < once.length; k++) once[k]();
      for (let i = 0; i < x.length; i++) {
        memory[0] = x[i];
        memory[1] = dx[i];
        for (let k = 0; k < states.length; k++) memory[2 + k] = arrays[k + 1][i];
        for (let k = 0; k < always.length; k++) always[k]();
        for (let k = 0; k < roots.length; k++) arrays[k][i] = memory[roots[k]];
      }
    },
    point: rule.lookahead && pointing(rule),
  };
}

return { GrammarError, parse, loss, slope, curvature, parseRule, choices, stepping, endsOf };
