// What the reader has chosen, all of it, and its link. Everything else on the page follows from it.

const NEWEST = 1; // of the kinds of links that this page reads
const LONGEST_LINK = 8000;
const MOST_STEPS = 5000;
const MOST_RULES = 12;

class Left extends Error {} // why something of a link is left out

const within = (low, high, whole = false) => ({
  read(text) {
    const value = text.trim() === "" ? NaN : Number(text);
    if (!(value >= low && value <= high) || (whole && !Number.isInteger(value))) {
      throw new Left(say(whole ? "left.whole" : "left.number", { low: short(low), high: short(high) }));
    }
    return value;
  },
  write: String,
});
const oneOf = (known) => ({
  read(text) {
    if (!known().includes(text)) throw new Left(say("left.one-of", { known: known().join(", ") }));
    return text;
  },
  write: String,
});
// What is mounted into the page: { place, mount }, where `mount(page, element)` is called once and may return
// { changed(page), drawn(page) }, which are called after the state has changed and after each picture.
const MODULES = [];

const names = { read: (text) => text.split(",").filter(Boolean), write: (list) => list.join(",") };
const someOf = (known) => ({
  read: (text, state) => [...new Set(names.read(text).map((name) => oneOf(() => known(state)).read(name)))],
  write: names.write,
});
const partsOf = () => [...new Set([...document.querySelectorAll("[data-part]")].map((part) => part.dataset.part))];

// The keys of a link besides those of rules (`adam.lr`) and of the surface (`valley.kappa`): how each is read and written, and
// what holds without it. A module adds its own.
const KEYS = {
  own: { fallback: () => "", read: readOwn, write: String },
  surface: {
    fallback: () => "double_well",
    read(text) {
      if (!has(SURFACES, text)) surfaceTyped(text); // throws where it is no formula
      return text;
    },
    write: String,
  },
  window: { fallback: usualWindow, read: readWindow, write: (ends) => ends.join(",") },
  rules: {
    fallback: () => ["sgd", "momentum", "adam"],
    read(text) {
      const ids = names.read(text);
      const unknown = ids.filter((id) => !has(RULES, ruleOf(id)));
      if (unknown.length) throw new Left(say("left.rules", { unknown: unknown.join(", ") }));
      if (!ids.length || ids.length > MOST_RULES) throw new Left(say("left.count", { most: MOST_RULES }));
      return [...new Set(ids)];
    },
    write: names.write,
  },
  start: {
    fallback: (state) => [...groundOf(state).start],
    read(text, state) {
      const { variables } = surfaceOf(state);
      const values = text.split(",").map((part) => within(-1e6, 1e6).read(part));
      if (values.length !== variables.length) throw new Left(say("left.start", { count: variables.length }));
      return values;
    },
    write: names.write,
  },
  lr: {
    fallback: () => 0.05,
    read: (text) => (["best", "own"].includes(text) ? text : within(1e-9, 1e6).read(text)),
    write: String,
  },
  steps: { fallback: () => 200, ...within(1, MOST_STEPS, true) },
  t: { fallback: () => 0, ...within(0, MOST_STEPS, true) },
  speed: { fallback: () => 1, ...within(0.125, 4) },
  off: { fallback: () => [], ...someOf((state) => state.rules) },
  look: { fallback: (state) => state.rules[0], ...oneOf(() => state.rules) },
  lang: { fallback: () => "en", ...oneOf(() => Object.keys(PLAY.words)) },
  hide: { fallback: () => [], ...someOf(partsOf) },
};

const has = (table, key) => Object.prototype.hasOwnProperty.call(table, key);
const ruleOf = (id) => id.replace(/\.\d+$/, ""); // a rule may walk twice: adam and adam.2
const state = {};

// The state of a link, and what of the link is left out: a list of [key, why].
function readLink(link) {
  const left = [];
  const given = new Map();
  const text = lessonLink(link.replace(/^#/, ""));
  if (text.length > LONGEST_LINK) left.push(["", say("left.long")]);
  else {
    for (const part of text.split("&").filter(Boolean)) {
      const equals = part.indexOf("=");
      try {
        given.set(decodeURIComponent(part.slice(0, Math.max(0, equals))), decodeURIComponent(part.slice(equals + 1)));
      } catch {
        left.push([part.slice(0, 40), say("left.encoding")]);
      }
    }
  }
  words.language = has(PLAY.words, given.get("lang")) ? given.get("lang") : "en"; // what is left out is said in it
  if (given.has("v") && Number(given.get("v")) !== NEWEST) left.push(["v", say("left.newer")]);
  given.delete("v");
  const found = state;
  for (const key of Object.keys(found)) delete found[key];
  delete RULES[OWN];
  for (const [key, { fallback, read }] of Object.entries(KEYS)) {
    found[key] = fallback(found);
    if (!given.has(key)) continue;
    try {
      found[key] = read(given.get(key), found);
    } catch (why) {
      left.push([key, why.problem ? sayProblem(why.problem) : why.message]);
    }
    given.delete(key);
  }
  found.shape = {};
  found.settings = {};
  for (const [key, text] of given) {
    try {
      readSetting(found, key, text);
    } catch (why) {
      left.push([key.slice(0, 60), why.message]);
    }
  }
  return left;
}

// The surface of a state, as it is turned, stretched and multiplied, for where a walk begins on it.
function groundOf(state) {
  return altered(surfaceOf(state), state.turn ?? 0, state.stretch ?? 1, state.times ?? 1);
}

// What a key such as `adam.lr`, `adam.bias_correction` or `valley.kappa` says.
function readSetting(found, key, text) {
  const dot = key.lastIndexOf(".");
  const [owner, name] = [key.slice(0, Math.max(0, dot)), key.slice(dot + 1)];
  const surface = surfaceOf(found);
  if (found.rules.includes(owner)) {
    const rule = RULES[ruleOf(owner)];
    const settings = found.settings[owner] ?? {};
    const set = (value) => (found.settings[owner] = { ...settings, [name]: value });
    if (has(rule.numbers, name)) set(within(...rule.ranges[name].map((end, k) => end ?? (k ? 1e300 : -1e300))).read(text));
    else if (has(rule.flags, name)) {
      const value = oneOf(() => ["0", "1"]).read(text) === "1";
      if (!has(rule.forms, flagsKey({ ...rule.flags, ...settings, [name]: value }))) throw new Left(say("left.together", { rule: owner }));
      if (value !== rule.flags[name]) set(value);
    }
    else throw new Left(say("left.setting", { rule: owner }));
  } else if (owner === found.surface && has(surface.parameters, name)) found.shape[name] = within(0, 1e6).read(text);
  else throw new Left(say("left.unknown"));
}

const escaped = (text) => text.replace(/[%&#\s"<>`]/g, encodeURIComponent);

// The link of the state: what is as it is without being said is left out.
function writeLink() {
  const parts = [];
  const before = {};
  for (const [key, { fallback, write }] of Object.entries(KEYS)) {
    before[key] = state[key];
    const text = write(state[key]);
    if (text !== write(fallback(state)) || (key === "surface" && state.lesson)) parts.push([key, text]);
  }
  for (const [name, value] of Object.entries(state.shape)) parts.push([`${state.surface}.${name}`, String(value)]);
  for (const id of state.rules) {
    const rule = RULES[ruleOf(id)];
    for (const [name, value] of Object.entries(state.settings[id] ?? {})) {
      const usual = has(rule.flags, name) ? rule.flags[name] : NaN;
      if (value !== usual) parts.push([`${id}.${name}`, typeof value === "boolean" ? String(Number(value)) : String(value)]);
    }
  }
  return `#${[["v", NEWEST], ...parts].map(([key, text]) => `${escaped(key)}=${escaped(String(text))}`).join("&")}`;
}
