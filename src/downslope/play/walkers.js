// The walkers that follow from the state: where each of them is after every step, and what is measured of that.

const DASHES = [[], [10, 3], [3, 3], [12, 3, 3, 3], [6, 2], [16, 4], [2, 2]];
let surface = null;
let walkers = [];
let goal = 0;
let every = 1;
let gusts = null; // what is added to the slopes
const now = { step: 0, playing: false, since: 0, from: 0, pointed: null, lit: "" };

const made = new Map(); // surfaces by what they are made of

// The surface of a state: that of a name, or of a formula that was typed.
function surfaceOf({ surface, window }) {
  return has(SURFACES, surface) ? SURFACES[surface] : surfaceTyped(surface, window);
}

// The surface of the state, with what of it is worked out once.
function surfaceNow() {
  const key = JSON.stringify([state.surface, state.window, state.shape, state.turn, state.stretch, state.times]);
  if (!made.has(key)) {
    const base = surfaceOf(state);
    const shape = { ...base.parameters, ...state.shape };
    if (made.size > 20) made.clear();
    const plain = { ...base, flat: base.variables.length === 2, height: base.height(shape), second: base.second(shape) };
    made.set(key, state.turn || state.stretch !== 1 || state.times !== 1 ? altered(plain, state.turn, state.stretch, state.times) : { ...plain, base: plain, to: (point) => Array.from(point), backTo: (point) => Array.from(point) });
  }
  return made.get(key);
}

// The flags that are on, as the programs of a rule are called by: a rule's own, whatever else there is.
const flagsKey = (flags) => Object.keys(flags).filter((name) => flags[name] === true && name !== "decoupled").join(" ");

// A rule as it is to walk: its program, its numbers.
function chosenRule(id) {
  const rule = RULES[ruleOf(id)];
  const settings = state.settings[id] ?? {};
  const pick = (usual) => Object.fromEntries(Object.entries(usual).map(([name, value]) => [name, settings[name] ?? value]));
  const flags = pick(rule.flags);
  const numbers = pick(rule.numbers);
  const own = rule.forms[flagsKey(flags)];
  const form = rule.decays && numbers.weight_decay ? decaying(own, flags.decoupled) : own;
  return { rule, flags, form, numbers, code: { ...form.code, response: form.response } };
}

// Makes the walkers of the rules that there are; those that were there stay the same ones.
function gather() {
  const before = new Map(walkers.map((walker) => [walker.id, walker]));
  const size = surface.variables.length;
  walkers = state.rules.map((id, k) => {
    const walker = before.get(id) ?? { id, name: id };
    const { form, losses, points } = walker;
    Object.assign(walker, chosenRule(id), {
      colour: `c${k % 7}`,
      dash: DASHES[(k + (k >= 7 ? 3 : 0)) % DASHES.length],
      shape: SHAPE_NAMES[k % SHAPE_NAMES.length],
      shown: !state.off.includes(id),
    });
    const fits = form === walker.form && losses.length === state.steps + 1 && points.length === (state.steps + 1) * size;
    if (!fits) walker.room = roomFor(walker.code, walker.numbers, size, state.steps, true);
    return walker;
  });
}

// Lets a walker walk at a learning rate, and measures its way.
function walk(walker, lr) {
  const size = surface.variables.length;
  const numbers = { ...walker.numbers, lr };
  walker.waiting = null;
  const way = walked(walker.code, numbers, surface, state.start, gusts, walker.room);
  const limit = limitOf(walker.form, numbers);
  const sharpness = sharpnesses(way, walker.code, numbers, surface, limit);
  Object.assign(walker, way, { lr, limit, sharpness, effective: effectiveSteps(way, walker.code, numbers, size) });
  walker.arrived = arrival(walker.losses, goal, surface.bottomless);
  Object.assign(walker, measured(walker.points, size, Math.min(walker.arrived, state.steps)));
}

// Lets those walk that wait for it, for so many milliseconds, but one of them at least.
let turn = 0;
function walkOn(milliseconds) {
  const end = performance.now() + milliseconds;
  for (let k = 0; k < walkers.length && (performance.now() < end || k === 0); k++) {
    const walker = walkers[turn++ % walkers.length];
    if (walker.waiting !== null) walk(walker, walker.waiting);
  }
}

const isWaiting = () => walkers.some((walker) => walker.waiting !== null);

// Works out everything anew: at once or, of what there is to be seen already, in the frames to come.
function recompute(atOnce) {
  surface = surfaceNow();
  gather();
  every = Math.ceil(state.steps / 600);
  const size = surface.variables.length;
  gusts = state.noise > 0 ? gustsOf(state.seed, state.noise, state.steps * size) : null;
  const first = surface.height(Float64Array.from(state.start), new Float64Array(1 + size))[0];
  goal = surface.lowest + (surface.bottomless ? PLAY.half : PLAY.close) * (first - surface.lowest);
  for (const walker of walkers) {
    const best = walker.trial?.outcomes.every(Boolean) ? bestIn(walker.trial) : walker.numbers.lr;
    walker.waiting = !("lr" in walker.numbers) ? NaN : state.lr === "best" ? best : state.lr === "own" ? walker.numbers.lr : state.lr;
  }
  const missing = walkers.filter((walker) => walker.losses !== walker.room.losses); // there is nothing to show of them yet
  for (const walker of missing) walk(walker, walker.waiting);
  if (atOnce) walkOn(Infinity);
  stale();
  staleCloud();
  if (state.lr === "best" && atOnce) tryRates(60);
  now.step = Math.min(now.step, state.steps);
  now.pointed = walkers.find((walker) => walker.id === now.pointed?.id) ?? null;
}

// What is drawn.
const scene = () => ({ surface, walkers, goal, steps: state.steps, every, ...now });
