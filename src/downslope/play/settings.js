// What may be set of the rule that is looked at, who else may walk beside it, and the rules that there are.

const DIALECT_NAMES = { torch: "PyTorch", keras: "Keras", tf1: "TensorFlow 1", optax: "Optax" };
const dialectName = ({ dialect }) => DIALECT_NAMES[dialect] ?? say(`dialect.${dialect}`);

// A name as words: what is said of it, or itself without underscores.
const settingName = (name) => (isSaid(`setting.${name}`) ? say(`setting.${name}`) : name.replaceAll("_", " "));

// How a slider stands for a number: fractions by how near to 1 they are, small numbers by their power of ten.
function sliderOf(name, [low, high]) {
  if (low === 0 && high < 1 + 1e-9 && high > 0.9) {
    return { min: 0, max: 4, step: 0.05, to: (s) => Number((1 - 10 ** -s).toPrecision(4)), from: (value) => -Math.log10(Math.max(1e-4, 1 - value)) };
  }
  if (/^eps/.test(name)) return { min: -16, max: 1, step: 0.5, to: (s) => Number((10 ** s).toPrecision(2)), from: (value) => Math.log10(Math.max(1e-16, value)) };
  if (name === "weight_decay") return { min: -4, max: 1, step: 0.1, to: (s) => (s <= -4 ? 0 : Number((10 ** s).toPrecision(2))), from: (value) => (value > 0 ? Math.log10(value) : -4) };
  if (name === "lr") return { min: -4, max: 2, step: 0.1, to: (s) => Number((10 ** s).toPrecision(2)), from: (value) => Math.log10(Math.max(1e-4, value)) };
  return null;
}

function set(id, name, value) {
  change({ settings: { ...state.settings, [id]: { ...state.settings[id], [name]: value } } });
}

// One walker more, or the same rule once more with settings of its own.
function addWalker(rule, settings = {}) {
  if (state.rules.length >= MOST_RULES) return;
  let id = rule;
  for (let k = 2; state.rules.includes(id); k++) id = `${rule}.${k}`;
  change({ rules: [...state.rules, id], settings: { ...state.settings, [id]: settings }, look: id });
}

function removeWalker(id) {
  if (state.rules.length < 2) return;
  const { [id]: _, ...settings } = state.settings;
  change({ rules: state.rules.filter((each) => each !== id), settings });
}

// The same walker by another program: in another dialect, with the settings that it has there too.
function replaceRule(id, rule) {
  if (state.rules.includes(rule)) return change({ look: rule });
  const { [id]: settings = {}, ...others } = state.settings;
  const kept = Object.entries(settings).filter(([name]) => has(RULES[rule].numbers, name));
  change({ rules: state.rules.map((each) => (each === id ? rule : each)), settings: { ...others, [rule]: Object.fromEntries(kept) }, look: rule });
}

let settingsFor = [];
function showSettings() {
  const walker = lookedAt();
  const { id, rule, numbers } = walker;
  const key = [walker, rule, state.lang, state.rules.length, typeof state.lr];
  if (key.some((value, k) => value !== settingsFor[k])) {
    settingsFor = key;
    buildSettings(walker);
  }
  for (const input of find("settings").querySelectorAll("[data-number]")) {
    const name = input.dataset.number;
    const value = name === "lr" && state.lr !== "own" ? walker.lr : numbers[name];
    const shown = input.type === "range" ? sliderOf(name, rule.ranges[name]).from(value) : value;
    if (document.activeElement !== input || input.type === "range") input.value = shown;
    if (input.type === "range") input.setAttribute("aria-valuetext", short(value));
  }
  for (const input of find("settings").querySelectorAll("[data-flag]")) {
    input.checked = walker.flags[input.dataset.flag];
    input.disabled = input.dataset.flag === "decoupled" && !numbers.weight_decay;
  }
  find("remove").disabled = state.rules.length < 2;
  find("twice").disabled = state.rules.length >= MOST_RULES;
}

function buildSettings({ id, rule, flags }) {
  const rows = Object.entries(rule.numbers).map(([name]) => {
    const [low, high] = rule.ranges[name].map((end, k) => end ?? (k ? 1e300 : -1e300));
    const slider = sliderOf(name, rule.ranges[name]);
    const to = (value) => (name === "lr" && state.lr !== "own" ? setRate(value) : set(id, name, value));
    const number = make("input", {
      type: "number", step: "any", autocomplete: "off",
      onchange: (event) => {
        const value = event.target.value.trim() === "" ? NaN : Number(event.target.value);
        if (value >= low && value <= high && (name !== "lr" || value > 0)) to(value);
        else showSettings(event.target.blur());
      },
    });
    const label = make("label", { className: "setting" }, make("span", {}, wrapped(symbol(name)), " ", make("small", { textContent: settingName(name) })), number);
    number.dataset.number = name;
    if (!slider) return make("div", {}, label);
    const range = make("input", { type: "range", min: slider.min, max: slider.max, step: slider.step, oninput: (event) => to(slider.to(Number(event.target.value))) });
    range.setAttribute("aria-label", `${name}, ${settingName(name)}`);
    range.dataset.number = name;
    return make("div", {}, label, range);
  });
  const offered = Object.keys(flags).filter((name) => has(rule.forms, flagsKey({ ...rule.flags, [name]: !rule.flags[name] })));
  const switches = offered.map((name) => {
    const box = make("input", { type: "checkbox", onchange: () => set(id, name, box.checked) });
    box.dataset.flag = name;
    return make("label", { className: "flag" }, box, " ", settingName(name));
  });
  const relatives = Object.entries(RULES).filter(([, each]) => each.family === rule.family);
  const dialect = make("select", { id: "dialect", onchange: (event) => replaceRule(id, event.target.value) });
  dialect.append(...relatives.map(([name, each]) => make("option", { value: name, textContent: dialectName(each), selected: name === ruleOf(id) })));
  const others = relatives.filter(([name]) => name !== ruleOf(id));
  const beside = make("select", { id: "beside", onchange: (event) => event.target.value && addWalker(event.target.value, { ...(typeof state.lr === "number" ? {} : { lr: lookedAt().lr }) }) });
  beside.append(make("option", { value: "", textContent: say("beside.choose") }), ...others.map(([name, each]) => make("option", { value: name, textContent: dialectName(each) })));
  find("settings").replaceChildren(
    make("h3", { textContent: say("settings.of", { name: id }) }),
    ...rows,
    ...switches,
    ...(others.length
      ? [make("label", { className: "setting" }, make("span", { textContent: say("dialect") }), dialect), make("label", { className: "setting" }, make("span", { textContent: say("beside") }), beside)]
      : []),
    make("div", { className: "row" },
      make("button", { type: "button", id: "twice", textContent: say("twice"), title: say("twice.is"), onclick: () => addWalker(ruleOf(id), { ...state.settings[id] }) }),
      make("button", { type: "button", id: "defaults", textContent: say("defaults"), onclick: () => change({ settings: { ...state.settings, [id]: {} } }) }),
      make("button", { type: "button", id: "remove", textContent: say("remove"), onclick: () => removeWalker(id) }),
    ),
  );
}

// The rules that may be added, by what they are forms of.
let addFor = "";
function showAdd() {
  find("add").disabled = state.rules.length >= MOST_RULES;
  if (addFor === state.lang) return;
  addFor = state.lang;
  const families = new Map();
  for (const [name, rule] of Object.entries(RULES)) families.set(rule.family, [...(families.get(rule.family) ?? []), name]);
  find("add").replaceChildren(
    make("option", { value: "", textContent: say("add") }),
    ...[...families].map(([family, names]) => {
      const group = make("optgroup", { label: family.replaceAll("_", " ") });
      group.append(...names.map((name) => make("option", { value: name, textContent: name })));
      return group;
    }),
  );
}

function listenToSettings() {
  find("add").addEventListener("change", (event) => {
    if (event.target.value) addWalker(event.target.value);
    event.target.value = "";
  });
  find("reset").addEventListener("click", () => {
    openLink(state.lang === "en" ? "" : `lang=${state.lang}`);
    going.play();
  });
  find("step-count").addEventListener("change", (event) => {
    try {
      change({ steps: KEYS.steps.read(event.target.value) });
    } catch {
      event.target.value = state.steps;
    }
  });
}
