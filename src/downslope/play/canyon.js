// The canyon: how every rule does at every learning rate, from this start on this surface. It is worked out bit by bit, as
// there is time for it, while everything else goes on; what is not yet known anew is shown as it was.

const RATES = PLAY.rates;
const ORDER = RATES.map((_, k) => (k * 37) % RATES.length); // so that all parts of the axis become known alike
const SHOWN = [1e-4, 100]; // of the learning rates, these are on the axis

// Something has changed: all is to be tried again.
function stale() {
  for (const walker of walkers) {
    walker.trial ??= { outcomes: RATES.map(() => null), next: 0, left: 0 };
    walker.trial.left = "lr" in walker.numbers ? RATES.length : 0;
  }
}

const isTried = () => walkers.every(({ trial }) => trial.left === 0);

// Tries learning rates for so many milliseconds, but one at least, of each rule in turn; a rule whose best one has become known
// walks with it.
let tried = 0;
function tryRates(milliseconds) {
  const end = performance.now() + milliseconds;
  const start = Float64Array.from(state.start);
  do {
    const walker = walkers[tried++ % walkers.length];
    const { trial } = walker;
    if (!trial.left) continue;
    const place = ORDER[trial.next];
    walker.trying = roomIn(walker.trying, walker.code, start.length);
    trial.outcomes[place] = outcome(walker.code, walker.numbers, surface, start, gusts, RATES[place], goal, walker.trying);
    trial.next = (trial.next + 1) % ORDER.length;
    if (!--trial.left && state.lr === "best") walk(walker, bestIn(trial));
  } while (!isTried() && performance.now() < end);
}

// Room for a way of which nothing is kept.
function roomIn(old, code, size) {
  return old && old.losses.length === state.steps + 1 && old.points.length === (state.steps + 1) * size ? old : roomFor(code, {}, size, state.steps, false);
}

const bestIn = (trial) => RATES[bestOf(trial.outcomes)];

// The learning rate at which the curvature where a rule ends is its limit; NaN where no one learning rate is.
function limitingRate(walker) {
  if (!walker.limit || walker.limit.held) return NaN;
  const curvature = curvatureAt(nearestMinimum(walker));
  return curvature > 0 ? walker.limit.limit / curvature : NaN;
}

function nearestMinimum({ points }) {
  const size = surface.variables.length;
  const end = points.subarray(points.length - size);
  const far = (minimum) => minimum.reduce((sum, value, i) => sum + (value - end[i]) ** 2, 0);
  const known = surface.minima.filter((minimum) => Number.isFinite(far(minimum)));
  return known.length ? known.reduce((a, b) => (far(b) < far(a) ? b : a)) : surface.minima[0] ?? state.start;
}

// The largest curvature at a point.
function curvatureAt(point) {
  const [a, b, , d] = surface.second(point, new Float64Array(surface.variables.length ** 2));
  return surface.flat ? (a + d) / 2 + Math.hypot((a - d) / 2, b) : a;
}

// Where a learning rate is on the canyon, and what is where.
const rateScale = (width) => {
  const [low, high] = SHOWN.map(Math.log10);
  const span = width - MARGIN.left - MARGIN.right;
  return {
    x: (rate) => MARGIN.left + (span * (Math.log10(rate) - low)) / (high - low),
    rate: (x) => Number((10 ** (low + (Math.max(0, Math.min(1, (x - MARGIN.left) / span)) * (high - low)))).toPrecision(2)),
  };
};

function drawCanyon(canvas) {
  const { context, width, height } = fitted(canvas);
  const { left, right, top, bottom } = MARGIN;
  const depth = (walker, k) => {
    const found = walker.trial.outcomes[k];
    return found ? found[2] - surface.lowest : NaN;
  };
  const first = Math.abs(surface.height(state.start, new Float64Array(3))[0] - surface.lowest) || 1;
  let low = first / 30;
  const shown = walkers.filter((walker) => walker.shown && "lr" in walker.numbers);
  for (const walker of shown) RATES.forEach((_, k) => depth(walker, k) > 0 && (low = Math.min(low, depth(walker, k))));
  low = Math.max(low, first * 1e-9);
  const high = first * 30;
  const { x } = rateScale(width);
  const y = (value) => top + ((height - top - bottom) * Math.log(high / Math.max(low, Math.min(high, value)))) / Math.log(high / low);
  drawLines(context, width, decades(Math.log10(low), Math.log10(high)).map((power) => 10 ** power), y);
  context.textAlign = "center";
  for (let power = Math.log10(SHOWN[0]); power <= Math.log10(SHOWN[1]); power++) context.fillText(short(10 ** power), x(10 ** power), height - 6);
  context.save();
  context.beginPath();
  context.rect(left, top - 2, width - left - right, height - top - bottom + 4);
  context.clip();
  for (const walker of shown) {
    const faint = now.pointed && now.pointed !== walker;
    context.strokeStyle = colour(walker.colour);
    context.globalAlpha = faint ? 0.12 : 1;
    context.setLineDash([4, 4]);
    context.lineWidth = 1.2;
    const limit = limitingRate(walker);
    if (Number.isFinite(limit)) straight(context, x(limit), top, x(limit), height - bottom);
    context.setLineDash(walker.dash);
    context.lineWidth = walker === now.pointed ? 3 : 1.8;
    const on = begun(context);
    RATES.forEach((rate, k) => walker.trial.outcomes[k] && on(x(rate), y(Number.isNaN(depth(walker, k)) ? Infinity : depth(walker, k))));
    context.stroke();
  }
  context.restore();
  context.setLineDash([]);
  context.globalAlpha = 1;
  if (typeof state.lr === "number") {
    context.strokeStyle = colour("ink");
    context.lineWidth = 1.5;
    context.strokeRect(x(state.lr), top, 0, height - top - bottom);
    context.beginPath();
    context.arc(x(state.lr), height - bottom, 7, 0, 2 * Math.PI);
    context.fillStyle = colour("accent");
    context.fill();
    context.strokeStyle = colour("page");
    context.stroke();
  }
  for (const walker of shown) {
    const place = markPlace(walker, x, y);
    const faint = now.pointed && now.pointed !== walker;
    context.globalAlpha = faint ? 0.25 : 1;
    if (place[0] >= left - 1 && place[0] <= width - right + 1) marker(context, walker.shape, ...place, colour(walker.colour), colour("page"), 1);
  }
  context.globalAlpha = 1;
}

// Where the mark of a walker is on the canyon: at its learning rate, and how it ends there.
function markPlace(walker, x, y) {
  const { losses } = walker;
  let end = -Infinity;
  for (let t = losses.length - Math.max(1, Math.floor(losses.length / 10)); t < losses.length; t++) end = losses[t] <= end ? end : losses[t];
  return [x(walker.lr), y(Number.isNaN(end) ? Infinity : end - surface.lowest)];
}

// A learning rate for all, or for the rule that is looked at where each has its own.
function setRate(rate) {
  if (state.lr !== "own") change({ lr: rate });
  else change({ settings: { ...state.settings, [state.look]: { ...state.settings[state.look], lr: rate } } });
}

const rateNow = () => (typeof state.lr === "number" ? state.lr : walkers.find((walker) => walker.id === state.look).lr);

function listenToCanyon() {
  const canvas = find("canyon");
  dragOn(canvas, (px, width, py, height, first) => {
    const scale = rateScale(width);
    if (first && state.lr === "own") {
      const near = walkers.filter((walker) => walker.shown && "lr" in walker.numbers);
      const far = (walker) => Math.abs(scale.x(walker.lr) - px);
      if (near.length) change({ look: near.reduce((a, b) => (far(b) < far(a) ? b : a)).id });
    }
    setRate(scale.rate(px));
  });
  const slider = find("rate");
  slider.max = 60;
  slider.addEventListener("input", () => setRate(Number((SHOWN[0] * 10 ** (slider.value / 10)).toPrecision(2))));
  for (const button of document.querySelectorAll("[data-rates]")) {
    button.addEventListener("click", () => {
      const kind = button.dataset.rates;
      if (kind === "best") change({ lr: "best" });
      else if (kind === "same") change({ lr: Number(rateNow().toPrecision(2)) || 0.1 });
      else {
        const own = Object.fromEntries(walkers.filter((walker) => walker.lr > 0).map((walker) => [walker.id, { ...state.settings[walker.id], lr: walker.lr }]));
        change({ lr: "own", settings: { ...state.settings, ...own } });
      }
    });
  }
}

function showRate() {
  const rate = rateNow();
  find("rate").value = Math.round(10 * Math.log10((rate || SHOWN[0]) / SHOWN[0]));
  find("rate").setAttribute("aria-valuetext", short(rate));
  find("rate-of").textContent = typeof state.lr === "number" ? say("rate.all") : state.look;
  find("rate-shown").textContent = short(rate);
  const limits = walkers.filter(({ shown }) => shown).map((walker) => [limitingRate(walker), walker.name]).filter(([limit]) => Number.isFinite(limit));
  find("limits").textContent = limits.sort(([a], [b]) => a - b).map(([limit, name]) => `${name}\u00a0${short(limit)}`).join(" · ");
}
