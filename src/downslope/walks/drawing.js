// Drawing a surface, walkers on it, and curves over steps, on canvases.

const LEVELS = [0.0005, 0.002, 0.006, 0.014, 0.03, 0.055, 0.09, 0.14, 0.2, 0.27, 0.35, 0.45, 0.56, 0.68, 0.8, 0.9, 0.97];
const SHAPES = {
  circle: null,
  square: [-4, -4, 4, -4, 4, 4, -4, 4],
  diamond: [0, -5.6, 5.6, 0, 0, 5.6, -5.6, 0],
  up: [0, -5.4, 5.2, 4, -5.2, 4],
  down: [0, 5.4, 5.2, -4, -5.2, -4],
  cross: [-1.8, -5, 1.8, -5, 1.8, -1.8, 5, -1.8, 5, 1.8, 1.8, 1.8, 1.8, 5, -1.8, 5, -1.8, 1.8, -5, 1.8, -5, -1.8, -1.8, -1.8],
  star: [0, -6, 1.5, -2, 5.6, -1.9, 2.3, 0.7, 3.5, 4.8, 0, 2.4, -3.5, 4.8, -2.3, 0.7, -5.6, -1.9, -1.5, -2],
  hourglass: [-4.5, -5, 4.5, -5, -4.5, 5, 4.5, 5],
};
const SHAPE_NAMES = Object.keys(SHAPES);

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// A canvas as sharp as the screen; drawn in CSS pixels.
function fitted(canvas) {
  const { width, height } = canvas.getBoundingClientRect();
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height, ratio };
}

function marker(context, shape, x, y, fill, edge, size = 1.15) {
  context.beginPath();
  const corners = SHAPES[shape];
  if (!corners) context.arc(x, y, 4.4 * size, 0, 2 * Math.PI);
  else {
    for (let i = 0; i < corners.length; i += 2) context.lineTo(x + size * corners[i], y + size * corners[i + 1]);
    context.closePath();
  }
  context.lineWidth = 3;
  context.lineJoin = "round";
  context.strokeStyle = edge;
  context.stroke();
  if (fill) {
    context.fillStyle = fill;
    context.fill();
  }
}

// Round steps between the ticks of an axis: 1, 2 or 5 times a power of ten.
function ticks(low, high, most) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((k) => k * power).find((size) => size >= rough);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) found.push(k === 0 ? 0 : k * step);
  return found;
}

function short(value) {
  if (Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) {
    const [mantissa, exponent] = value.toExponential(1).split("e");
    const power = [...String(Number(exponent))].map((d) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(d)]).join("");
    const digits = mantissa.replace(/\.0$/, "").replace("-", "−");
    return digits === "1" ? `10${power}` : `${digits} × 10${power}`;
  }
  return String(Number(value.toPrecision(3))).replace("-", "−");
}

// The values of a surface on a grid over its ranges.
function sampled(surface, count) {
  const [[x0, x1], [y0, y1]] = surface.ranges;
  const values = new Float64Array(count * count);
  const out = new Float64Array(3);
  const at = new Float64Array(2);
  for (let j = 0; j < count; j++) {
    at[1] = y1 - ((y1 - y0) * j) / (count - 1);
    for (let i = 0; i < count; i++) {
      at[0] = x0 + ((x1 - x0) * i) / (count - 1);
      values[j * count + i] = surface.height(at, out)[0];
    }
  }
  return values;
}

// Heights between bands of the map: closer together near the lowest point, where the walkers end.
function levels(values) {
  const known = values.filter(Number.isFinite).sort();
  if (!known.length) return [];
  return [...new Set(LEVELS.map((part) => known[Math.floor(part * (known.length - 1))]))].filter((level) => level > known[0]);
}

// Where the height is a level: short lines, between the points of the grid (marching squares).
function contour(values, count, level) {
  const lines = [];
  const cut = (a, b) => (level - a) / (b - a);
  for (let j = 0; j + 1 < count; j++) {
    for (let i = 0; i + 1 < count; i++) {
      const a = values[j * count + i];
      const b = values[j * count + i + 1];
      const c = values[(j + 1) * count + i + 1];
      const d = values[(j + 1) * count + i];
      const kind = (a > level) | ((b > level) << 1) | ((c > level) << 2) | ((d > level) << 3);
      if (kind === 0 || kind === 15 || !Number.isFinite(a + b + c + d)) continue;
      const top = [i + cut(a, b), j];
      const right = [i + 1, j + cut(b, c)];
      const bottom = [i + cut(d, c), j + 1];
      const left = [i, j + cut(a, d)];
      const middle = (a + b + c + d) / 4 > level;
      if (kind === 5 || kind === 10) {
        const joined = (kind === 5) === middle;
        lines.push(joined ? [top, right] : [top, left], joined ? [bottom, left] : [bottom, right]);
      } else {
        const sides = [];
        if ((kind & 1) !== ((kind >> 1) & 1)) sides.push(top);
        if (((kind >> 1) & 1) !== ((kind >> 2) & 1)) sides.push(right);
        if (((kind >> 2) & 1) !== ((kind >> 3) & 1)) sides.push(bottom);
        if (((kind >> 3) & 1) !== (kind & 1)) sides.push(left);
        lines.push(sides);
      }
    }
  }
  return lines;
}

// The map of a surface of two variables, on a canvas of its own that is made once.
function mapped(surface, width, height, ratio) {
  const count = 161;
  const values = sampled(surface, count);
  const edges = levels(values);
  const rgb = (name) => colour(name).match(/\w\w/g).map((part) => parseInt(part, 16));
  const [low, high] = [rgb("low"), rgb("high")];
  const picture = new ImageData(count, count);
  for (let k = 0; k < values.length; k++) {
    let band = 0;
    while (band < edges.length && !(values[k] <= edges[band])) band++;
    const part = edges.length ? band / edges.length : 1;
    for (let c = 0; c < 3; c++) picture.data[4 * k + c] = low[c] + part * (high[c] - low[c]);
    picture.data[4 * k + 3] = Number.isNaN(values[k]) ? 0 : 255;
  }
  const small = new OffscreenCanvas(count, count);
  small.getContext("2d").putImageData(picture, 0, 0);
  const map = new OffscreenCanvas(Math.round(width * ratio), Math.round(height * ratio));
  const context = map.getContext("2d");
  context.drawImage(small, 0.5, 0.5, count - 1, count - 1, 0, 0, map.width, map.height);
  context.scale(map.width / (count - 1), map.height / (count - 1));
  context.lineWidth = (0.8 * ratio * (count - 1)) / map.width;
  context.strokeStyle = colour("contour");
  for (const level of edges) {
    context.beginPath();
    for (const [from, to] of contour(values, count, level)) {
      context.moveTo(...from);
      context.lineTo(...to);
    }
    context.stroke();
  }
  return map;
}
