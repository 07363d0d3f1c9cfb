// A rule of the reader's own, typed into the page: read as it is typed, and it walks as soon as it is a rule.

const OWN = PLAY.own.includes("own") ? "typed" : "own"; // what it is called among the rules
const EXAMPLES = {
  momentum: "v = mu*v - lr*dx\nx += v",
  adagrad: "cache += dx**2\nx -= lr * dx / (sqrt(cache) + eps)",
  sign: "x -= lr * sign(dx)",
  adam: "bias_correction = True\nm = beta1*m + (1 - beta1)*dx\nv = beta2*v + (1 - beta2)*dx**2\nm_hat = m / (1 - beta1**t) if bias_correction else m\nv_hat = v / (1 - beta2**t) if bias_correction else v\nx -= lr * m_hat / (sqrt(v_hat) + eps)",
  nesterov: "lookahead = mu*v\nv = mu*v - lr*dx\nx += v",
  brake: "brake = 0.5\nv = where(v*dx > 0, brake*v, mu*v) - lr*dx\nx += v",
};

// The lines of a rule as those of other rules are given: name, tree, and whether the value changes from step to step.
function ownLines({ lines, states, lookahead }) {
  const places = new Map();
  const changing = new Map();
  const tree = (part, top = false) => {
    if (part.op === "input" || part.op === "constant") return part.value;
    if (places.has(part) && !top) return [places.get(part)];
    return [part.op, ...part.args.map((arg) => tree(arg))];
  };
  const changes = (part) => {
    if (part.op === "input") return ["x", "dx", "t", ...states].includes(part.value);
    if (!changing.has(part)) changing.set(part, part.args.some(changes));
    return changing.get(part);
  };
  const first = lookahead ? [["ahead", { op: "add", args: [{ op: "input", args: [], value: "x" }, lookahead] }]] : [];
  return [...first, ...lines].map(([name, value], k) => {
    const line = [name, tree(value, true), changes(value) || states.includes(name) || name === "x"];
    if (value.args.length && !places.has(value) && name !== "ahead") places.set(value, k);
    return line;
  });
}

// What one step makes of one weight: [x, states..., dx] becomes [x, states...].
function stepOf(code, states, numbers, t) {
  return (values) => {
    const arrays = values.map((value) => Float64Array.of(value));
    const remembered = Object.fromEntries(states.map((name, k) => [name, arrays[k + 1]]));
    code.step(arrays[0], arrays[values.length - 1], remembered, numbers, t);
    return arrays.slice(0, -1).map(([value]) => value);
  };
}

// Where its gradient is taken, from the same values.
function whereOf(code, states, numbers) {
  const at = new Float64Array(1);
  return ([x, ...others]) => {
    if (code.point) code.point(at, Float64Array.of(x), Object.fromEntries(states.map((name, k) => [name, [others[k]]])), numbers);
    return code.point ? [at[0]] : [x];
  };
}

// Whether a step is linear in the weight, its states and its gradient, as far as it can be seen by trying.
function isLinear(code, states, numbers) {
  const [step, place] = [stepOf(code, states, numbers, 1000), whereOf(code, states, numbers)];
  const all = (values) => [...step(values), ...place(values)];
  const some = (k, size) => Array.from({ length: states.length + 2 }, (_, i) => size * Math.sin(1 + 7 * k + 3 * i));
  const scale = (values) => Math.max(...values.map(Math.abs));
  const near = (a, b) => a.every((value, i) => Math.abs(value - b[i]) <= 1e-9 * Math.max(scale(a), scale(b)));
  return [1e-3, 1, 1e3].every((size) =>
    [0, 1, 2, 3].every((k) => {
      const [a, b] = [some(k, size), some(k + 10, 1)];
      const [left, right] = [all(a), all(b)];
      return near(all(a.map((value, i) => value + b[i])), left.map((value, i) => value + right[i]));
    }),
  );
}

// The recurrence that a linear rule is on a quadratic, found by letting it step from each value alone.
function ownRecurrence(code, states) {
  const names = Object.keys(code.hyperparameters);
  if (!names.includes("lr") || !isLinear(code, states, code.hyperparameters)) return { reason: "own", held: [], size: 0, inputs: [], fill: null };
  const size = 1 + states.length;
  const fill = (...values) => {
    const table = values.pop();
    const numbers = Object.fromEntries(names.map((name, k) => [name, values[k]]));
    const [step, place] = [stepOf(code, states, numbers, values[names.length]), whereOf(code, states, numbers)];
    for (let j = 0; j <= size; j++) {
      const one = Array.from({ length: size + 1 }, (_, i) => Number(i === j));
      [...step(one), ...place(one)].forEach((value, i) => (table[i * (size + 1) + j] = value));
    }
    return table;
  };
  return { reason: "", held: [], size, inputs: [...names, "t"], fill };
}

// How far a step of a linear rule moves a weight per unit of its gradient.
function ownResponse({ reason, size, inputs, fill }) {
  return reason ? null : { inputs, value: (...values) => -fill(...values, new Float64Array((size + 1) * (size + 1)))[size] };
}

// The program of a typed rule for a choice of its flags.
function ownForm(read) {
  const code = READER.stepping(read, OWN);
  const recurrence = ownRecurrence(code, read.states);
  return { code, response: ownResponse(recurrence), recurrence, lines: ownLines(read) };
}

// The entry of a typed rule among the rules. Throws a GrammarError where the text is no rule.
function ownEntry(text) {
  const { hyperparameters, flags } = READER.parseRule(text);
  const forms = READER.choices(flags).map((each) => [flagsKey(each), ownForm(READER.parseRule(text, each))]);
  return ruleEntry(OWN, {
    dialect: "own",
    python: `downslope.read_rule(${JSON.stringify(text)})`,
    numbers: hyperparameters,
    flags,
    forms: Object.fromEntries(forms),
  });
}

// What a link says of it: the text of a rule, which is then among the rules.
function readOwn(text) {
  if (text) RULES[OWN] = ownEntry(text);
  return text;
}

// What is wrong with a text, in the language of the page: Python's sentences are the English ones.
function sayProblem(problem) {
  for (const [key, text] of Object.entries(PLAY.words[words.language])) {
    if (!key.startsWith("problem.")) continue;
    const parts = key.slice("problem.".length).split(/\{\w+\}/).map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    const found = problem.match(new RegExp(`^${parts.join("([^]+?)")}$`));
    if (found) return text.replace(/\{(\d)\}/g, (_, k) => found[Number(k) + 1]);
  }
  return problem;
}

// A text with a mark at the place where it goes wrong.
function pointedAt(text, place) {
  const first = text.lastIndexOf("\n", place - 1) + 1;
  const line = text.slice(first).split("\n")[0];
  return [line.slice(0, place - first), line.slice(place - first, place - first + 1) || " ", line.slice(place - first + 1)];
}

// What is wrong with the text of a field, below it.
function showProblem(element, field, error) {
  const wrong = Boolean(error && field.value);
  field.setAttribute("aria-invalid", String(wrong));
  if (!wrong) return element.replaceChildren();
  if (!(error instanceof READER.GrammarError)) return element.replaceChildren(make("p", { textContent: error.message }));
  const [before, at, after] = pointedAt(field.value, error.place);
  element.replaceChildren(make("code", {}, before, make("mark", { textContent: at }), after), make("p", { textContent: sayProblem(error.problem) }));
}

MODULES.push({
  place: "own-rule",
  mount(page, element) {
    const field = make("textarea", { id: "own-text", rows: 5, spellcheck: false, autocapitalize: "off", autocomplete: "off" });
    field.setAttribute("aria-describedby", "own-problem own-hint");
    const problem = make("div", { id: "own-problem", className: "problem", role: "status" });
    const walks = make("button", { type: "button", id: "own-walks" });
    const example = make("select", { id: "own-example" });
    const label = make("label", { htmlFor: "own-text" });
    const examples = make("label", {}, make("span"), " ", example);
    const hint = make("p", { id: "own-hint", className: "small" });
    element.className = "own";
    element.append(make("h2"), label, make("div", { className: "typing" }, field, problem), make("div", { className: "row" }, walks, examples), hint);
    let applied = null; // the text of the state when it was last shown here
    let shown = "";
    const among = () => page.state.rules.includes(OWN);

    function entry() {
      try {
        return { found: ownEntry(field.value) };
      } catch (error) {
        if (!(error instanceof READER.GrammarError)) throw error;
        return { error };
      }
    }

    // Takes what is typed over, if it is a rule; until then what walks is what was typed before.
    function typed(walking = among()) {
      const { found, error } = entry();
      show(error);
      if (error) return;
      RULES[OWN] = found;
      applied = field.value;
      const { rules, settings } = page.state;
      const kept = Object.entries(settings[OWN] ?? {}).filter(([name]) => has(found.numbers, name) || has(found.flags, name));
      const others = rules.filter((id) => id !== OWN);
      page.change({
        own: field.value,
        settings: { ...settings, [OWN]: Object.fromEntries(kept) },
        rules: walking ? [...others.slice(0, MOST_RULES - 1), OWN] : others,
        ...(walking && !among() ? { look: OWN } : {}),
      });
    }

    const show = (error) => showProblem(problem, field, error);

    function changed() {
      const now = JSON.stringify([page.state.own, page.state.lang, among()]);
      if (now === shown) return;
      shown = now;
      if (page.state.own !== applied) {
        field.value = applied = page.state.own;
        show(null);
      }
      element.querySelector("h2").textContent = say("own.title");
      label.textContent = say("own.label");
      hint.textContent = say("own.hint");
      walks.textContent = say(among() ? "own.away" : "own.walks");
      walks.disabled = !field.value && !among();
      examples.firstChild.textContent = say("own.example");
      example.replaceChildren(
        make("option", { value: "", textContent: say("own.choose") }),
        ...Object.keys(EXAMPLES).map((key) => make("option", { value: key, textContent: say(`own.example.${key}`) })),
      );
      show(field.value ? entry().error : null);
    }

    field.addEventListener("input", () => {
      walks.disabled = !field.value && !among();
      if (field.value || among()) typed();
    });
    walks.addEventListener("click", () => {
      if (!among()) return typed(true);
      const rules = page.state.rules.filter((id) => id !== OWN);
      page.change({ rules: rules.length ? rules : ["sgd"] });
    });
    example.addEventListener("change", () => {
      field.value = EXAMPLES[example.value] ?? field.value;
      typed(true);
      example.value = "";
    });
    return { changed };
  },
});
