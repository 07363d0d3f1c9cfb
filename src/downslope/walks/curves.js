// What becomes of every rule over the steps: its loss, and how near the curvature is to its limit.

const MARGIN = { left: 52, right: 10, top: 10, bottom: 24 };

function drawLosses(canvas, scene) {
  const { surface, walkers, goal } = scene;
  const log = !surface.bottomless;
  const lowest = log ? surface.lowest : 0;
  const first = walkers[0].losses[0] - lowest;
  const curve = ({ once, losses }) => (once.curve ??= curveOf(telling(losses, 300), (t) => losses[t] - lowest, log));
  let low = log ? first : Infinity;
  for (const walker of walkers) if (walker.shown) low = Math.min(low, curve(walker).least);
  const depth = Math.abs(walkers[0].losses[0] - surface.lowest);
  const high = log ? 4 * first : first + 0.4 * depth;
  low = log ? Math.max(low / 2, first * 1e-12) : Math.max(low, surface.lowest - 1.4 * depth);
  drawCurves(canvas, scene, { low, high, log, mark: goal - lowest, curve, value: (walker, t) => walker.losses[t] - lowest });
}

// Learning rate times curvature, over the limit.
function drawNearness(canvas, scene) {
  const { walkers, every } = scene;
  const value = (walker, t) => (t % every ? walker.sharpness(t) : walker.sharp[t / every]) / walker.limit?.limit;
  const curve = (walker) => (walker.once.nearness ??= curveOf(walker.sharp.map((_, k) => k * every), (t) => value(walker, t), true));
  let [low, high] = [0.3, 2];
  for (const { sharp, limit } of walkers.filter((walker) => walker.shown && walker.limit)) {
    for (const each of sharp) {
      if (each > 0) low = Math.min(low, each / limit.limit);
      if (each < Infinity) high = Math.max(high, each / limit.limit);
    }
  }
  low = Math.max(low / 1.5, 1e-4); // farther from the limit it does not matter how far
  drawCurves(canvas, scene, { low, high: Math.min(high * 1.5, 1e3), log: true, mark: 1, curve, value });
}

// The places of values between which a curve can be drawn: all of them or, of many, the least and the largest of each of so
// many parts, and what is no number.
function telling(values, parts) {
  const size = Math.max(1, Math.floor(values.length / parts));
  const places = [];
  for (let begin = 0; begin < values.length; begin += size) {
    let [low, high, wrong] = [begin, begin, -1];
    for (let t = begin; t < Math.min(values.length, begin + size); t++) {
      if (values[t] < values[low]) low = t;
      else if (values[t] > values[high]) high = t;
      if (!Number.isFinite(values[t])) wrong = t;
    }
    for (const t of [low, high, wrong].sort((a, b) => a - b)) if (t >= 0 && t !== places[places.length - 1]) places.push(t);
  }
  return places;
}

// A curve through the values at some places: how high each is on the scale, NaN where it is nowhere, and the least value.
function curveOf(places, value, log) {
  let least = Infinity;
  const heights = Float64Array.from(places, (t) => {
    const size = value(t);
    if (!Number.isFinite(size)) return NaN;
    if (size > 0 || !log) least = Math.min(least, size);
    return log ? Math.log10(Math.max(size, 0)) : size;
  });
  return { places, heights, least };
}

// Curves of all rules that are shown, with a line at a mark.
function drawCurves(canvas, { walkers, steps, step, pointed }, { low, high, log, mark, curve, value }) {
  const { context, width, height } = fitted(canvas);
  const { left, right, top, bottom } = MARGIN;
  const scale = log ? (size) => Math.log10(Math.max(size, 0)) : Number;
  const [lowest, highest] = [scale(low), scale(high)];
  const x = (t) => left + ((width - left - right) * t) / steps;
  const at = (on) => top + ((height - top - bottom) * (highest - Math.max(on, lowest))) / (highest - lowest);
  const y = (size) => at(scale(size));
  drawLines(context, width, log ? decades(lowest, highest).map((power) => 10 ** power) : ticks(low, high, 4), y);
  context.textAlign = "center";
  for (const t of ticks(0, steps, width / 90)) context.fillText(short(t), x(t), height - 6);
  context.setLineDash([2, 4]);
  context.strokeStyle = colour("ink");
  straight(context, left, y(mark), width - right, y(mark));
  context.setLineDash([]);
  context.save();
  context.beginPath();
  context.rect(left, top, width - left - right, height - top - bottom);
  context.clip();
  const shown = walkers.filter((walker) => walker.shown);
  for (const walker of shown) {
    const faint = pointed && pointed !== walker;
    context.strokeStyle = colour(walker.colour);
    context.setLineDash(walker.dash);
    context.lineWidth = walker === pointed ? 3 : 1.8;
    const { places, heights } = curve(walker);
    let k = 0;
    for (const [from, to, opacity] of [[0, step, 1], [step, steps, 0.25]]) {
      context.globalAlpha = faint ? 0.12 : opacity;
      const on = begun(context);
      const end = (t) => on(x(t), Number.isFinite(value(walker, t)) ? y(value(walker, t)) : NaN);
      end(from);
      for (; k < places.length && places[k] < to; k++) if (places[k] > from) on(x(places[k]), at(heights[k]));
      end(to);
      context.stroke();
    }
    context.globalAlpha = 1;
    context.setLineDash([]);
  }
  context.restore();
  context.strokeStyle = colour("muted");
  context.strokeRect(x(step), top, 0, height - top - bottom);
  for (const walker of shown) {
    const size = value(walker, step);
    if (!Number.isFinite(size) || y(size) < top) continue;
    if (pointed && pointed !== walker) continue;
    marker(context, walker.shape, x(step), Math.min(y(size), height - bottom), colour(walker.colour), colour("page"), 0.9);
  }
}

// Lines across at some values, with the values beside them.
function drawLines(context, width, values, y) {
  const { left, right } = MARGIN;
  context.font = "11px system-ui, sans-serif";
  context.lineWidth = 1;
  context.textAlign = "right";
  context.strokeStyle = colour("grid");
  context.fillStyle = colour("muted");
  for (const value of values) {
    context.strokeRect(left, y(value), width - left - right, 0);
    context.fillText(short(value), left - 6, y(value) + 4);
  }
}

function decades(low, high) {
  const every = Math.max(1, Math.ceil((high - low) / 5));
  const found = [];
  for (let k = Math.ceil(low); k <= high; k++) if (k % every === 0) found.push(k);
  return found;
}
