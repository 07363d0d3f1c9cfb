// Noise on the slopes, the same for all, and a cloud of repeats with other noise; and the ground turned, stretched and multiplied:
// who changes his way?

const REPEATS = 50;

KEYS.noise = { fallback: () => 0, ...within(0, 1e3) };
KEYS.seed = { fallback: () => 0, ...within(0, 4294960000, true) };
KEYS.cloud = { fallback: () => 0, ...within(0, 1, true) };
KEYS.turn = { fallback: () => 0, ...within(-180, 180) };
KEYS.stretch = { fallback: () => 1, ...within(0.01, 100) };
KEYS.times = { fallback: () => 1, ...within(1e-6, 1e6) };

const isAsItWas = () => state.times === 1 && state.stretch === 1 && (state.turn === 0 || !surface?.flat);

// A surface turned by degrees, stretched along its first axis before that, and multiplied: with where its places are now.
function altered(base, turn, stretch, times) {
  if (base.variables.length === 1) turn = 0;
  const [c, s] = [Math.cos((turn * Math.PI) / 180), Math.sin((turn * Math.PI) / 180)];
  const flat = base.variables.length === 2;
  const to = ([x, y]) => (flat ? [c * stretch * x - s * y, s * stretch * x + c * y] : [stretch * x]);
  const back = flat ? [c / stretch, s / stretch, -s, c] : [1 / stretch]; // the inverse, by rows
  const from = new Float64Array(base.variables.length);
  const size = from.length;
  const backTo = (point) => {
    for (let i = 0; i < size; i++) {
      from[i] = 0;
      for (let j = 0; j < size; j++) from[i] += back[i * size + j] * point[j];
    }
    return from;
  };
  const inner = new Float64Array(1 + size);
  const inner2 = new Float64Array(size * size);
  const corners = flat ? [0, 1, 2, 3].map((k) => to([base.ranges[0][k & 1], base.ranges[1][k >> 1]])) : base.ranges[0].map((x) => to([x]));
  const round = (value) => Number(value.toPrecision(4));
  return {
    ...base,
    to,
    backTo: (point) => Array.from(backTo(point)),
    base,
    ranges: base.variables.map((_, i) => [Math.min(...corners.map((corner) => corner[i])), Math.max(...corners.map((corner) => corner[i]))].map(round)),
    start: to(base.start).map(round),
    minima: base.minima.map(to),
    lowest: times * base.lowest,
    tall: base.tall.map((height) => times * height),
    height(point, out) {
      base.height(backTo(point), inner);
      out[0] = times * inner[0];
      for (let i = 0; i < size; i++) {
        out[1 + i] = 0;
        for (let j = 0; j < size; j++) out[1 + i] += times * back[j * size + i] * inner[1 + j];
      }
      return out;
    },
    second(point, out) {
      base.second(backTo(point), inner2);
      for (let i = 0; i < size; i++) {
        for (let k = 0; k < size; k++) {
          let sum = 0;
          for (let j = 0; j < size; j++) for (let l = 0; l < size; l++) sum += back[j * size + i] * inner2[j * size + l] * back[l * size + k];
          out[i * size + k] = times * sum;
        }
      }
      return out;
    },
  };
}

// Whether a rule walks on the ground as it was, at the same learning rate, the way that it walks here, seen there.
function keepsWay(walker) {
  const size = surface.variables.length;
  const numbers = { ...walker.numbers, lr: walker.lr };
  const way = walked(walker.code, numbers, surface.base, surface.backTo(state.start), null, roomFor(walker.code, numbers, size, state.steps, false));
  const here = gusts ? walked(walker.code, numbers, surface, state.start, null, roomFor(walker.code, numbers, size, state.steps, false)) : walker;
  const span = Math.hypot(...surface.ranges.map(([low, high]) => high - low));
  for (let t = 0; t <= state.steps; t++) {
    const there = surface.to(way.points.subarray(t * size, (t + 1) * size));
    const apart = Math.hypot(...there.map((value, i) => value - here.points[t * size + i]));
    if (Number.isNaN(apart)) return true; // both have gone where no number is
    if (apart > 1e-6 * span) return false;
    if (apart > 1e9 * span) return true;
  }
  return true;
}

// The cloud: where a walker would be with other noise, for as many repeats as have been worked out.
function staleCloud() {
  for (const walker of walkers) walker.cloud = state.cloud && state.noise > 0 ? { ways: [], left: REPEATS } : { ways: [], left: 0 };
}

const isClouded = () => walkers.every(({ cloud }) => cloud.left === 0);

function workClouds(milliseconds) {
  const end = performance.now() + milliseconds;
  const size = surface.variables.length;
  for (const walker of walkers) {
    while (walker.cloud.left) {
      const room = roomFor(walker.code, walker.numbers, size, state.steps, false);
      const other = gustsOf(state.seed + 1 + walker.cloud.ways.length, state.noise, state.steps * size);
      walker.cloud.ways.push(walked(walker.code, { ...walker.numbers, lr: walker.lr }, surface, state.start, other, room));
      walker.cloud.left--;
      if (performance.now() > end) return;
    }
  }
}

function drawClouds({ context, place }) {
  for (const walker of walkers) {
    if (!walker.shown) continue;
    context.fillStyle = colour(walker.colour);
    context.globalAlpha = 0.5;
    const size = surface.variables.length;
    for (const { points, losses } of walker.cloud.ways) {
      const [x, y] = place(points[now.step * size], surface.flat ? points[now.step * size + 1] : losses[now.step]);
      if (Number.isFinite(x + y)) context.fillRect(x - 1.7, y - 1.7, 3.4, 3.4);
    }
  }
  context.globalAlpha = 1;
}

// How high the repeats are at the step shown: the middle one, and nine in ten of them between which two.
function cloudSays(walker) {
  const losses = walker.cloud.ways.map((way) => way.losses[now.step]).sort((a, b) => (a < b || b !== b ? -1 : 1));
  if (!losses.length) return "";
  const at = (part) => short(losses[Math.round(part * (losses.length - 1))]);
  return say("cloud.says", { name: walker.name, middle: at(0.5), low: at(0.05), high: at(0.95) });
}

const CONTROLS = [
  { key: "noise", min: -2, max: 1.5, step: 0.1, to: (s) => (s <= -2 ? 0 : Number((10 ** s).toPrecision(2))), from: (value) => (value > 0 ? Math.log10(value) : -2) },
  { key: "turn", min: -180, max: 180, step: 5, to: Number, from: Number },
  { key: "stretch", min: -1, max: 1, step: 0.05, to: (s) => Number((10 ** s).toPrecision(2)), from: Math.log10 },
  { key: "times", min: -3, max: 3, step: 0.1, to: (s) => Number((10 ** s).toPrecision(2)), from: Math.log10 },
];

function changeGround(patch) {
  const from = surface;
  const before = from.backTo(state.start);
  Object.assign(state, patch);
  change({ start: placeWithin(surfaceNow(), surfaceNow().to(before)) }); // the same place of the same ground
}

function buildWeather() {
  const control = ({ key, min, max, step, to, from }) => {
    const apply = (value) => (key === "noise" ? change({ noise: value }) : changeGround({ [key]: value }));
    const number = make("input", {
      type: "number", step: "any", autocomplete: "off", id: `number-${key}`,
      onchange: (event) => {
        try {
          apply(KEYS[key].read(event.target.value));
        } catch {
          event.target.value = state[key];
        }
      },
    });
    const range = make("input", { type: "range", min, max, step, id: `slide-${key}`, oninput: (event) => apply(to(Number(event.target.value))) });
    range.dataset.sayLabel = key;
    const words = make("span");
    words.dataset.say = key;
    return { key, from, number, range, node: make("div", { className: "control" }, make("label", { className: "setting" }, words, number), range) };
  };
  const made = CONTROLS.map(control);
  find("weather-noise").append(made[0].node);
  find("weather-ground").append(...made.slice(1).map(({ node }) => node));
  return made;
}

let weatherControls = null;
let shapesFor = null;
function showWeather() {
  weatherControls ??= (() => {
    const built = buildWeather();
    sayAll(find("weather"));
    return built;
  })();
  for (const { key, from, number, range } of weatherControls) {
    number.value = state[key];
    range.value = from(state[key]);
    range.setAttribute("aria-valuetext", short(state[key]));
  }
  find("slide-turn").closest(".control").hidden = !surface.flat;
  find("cloud").checked = Boolean(state.cloud);
  find("cloud").disabled = !(state.noise > 0);
  if (shapesFor !== state.surface) {
    shapesFor = state.surface;
    find("shapes").replaceChildren(
      ...Object.keys(surface.parameters).map((name) => {
        const number = make("input", {
          type: "number", step: "any", autocomplete: "off",
          onchange: (event) => {
            const value = Number(event.target.value);
            if (event.target.value.trim() !== "" && value >= 0 && value <= 1e6) change({ shape: { ...state.shape, [name]: value } });
            else showWeather();
          },
        });
        number.dataset.shape = name;
        return make("label", { className: "setting" }, make("span", {}, wrapped(symbol(name)), " ", make("small", { textContent: settingName(name) })), number);
      }),
    );
  }
  for (const input of find("shapes").querySelectorAll("input")) input.value = state.shape[input.dataset.shape] ?? surface.parameters[input.dataset.shape];
  if (!isAsItWas() || state.noise > 0 || Object.keys(state.shape).length) find("weather").open = true;
}

function fillWeather() {
  find("cloud-says").replaceChildren(...walkers.filter((walker) => walker.shown && walker.cloud.ways.length).map((walker) => make("li", { textContent: cloudSays(walker) })));
  const asked = !isAsItWas();
  find("ways-say").hidden = !asked;
  if (!asked) return;
  const shown = walkers.filter((walker) => walker.shown && "lr" in walker.numbers);
  const keep = shown.filter(keepsWay);
  const list = (some) => some.map((walker) => walker.name).join(", ") || say("nobody");
  find("ways-say").textContent = say("ways.say", { same: list(keep), other: list(shown.filter((walker) => !keep.includes(walker))) });
}

function listenToWeather() {
  find("cloud").addEventListener("change", (event) => change({ cloud: Number(event.target.checked) }));
  find("other-noise").addEventListener("click", () => change({ seed: state.seed + 1, noise: state.noise || 0.3 }));
  find("as-it-was").addEventListener("click", () => changeGround({ turn: 0, stretch: 1, times: 1, noise: 0, cloud: 0, shape: {} }));
}
