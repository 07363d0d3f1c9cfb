// What drawings on canvases are made of: colours, marks, ticks, and numbers as people write them.

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

// The colours of the page, looked up once: asking for them while a page is being changed makes it work out its styles anew.
let colours = new Map();
for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", () => colours.clear());

function colour(name) {
  if (!colours.has(name)) colours.set(name, getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim());
  return colours.get(name);
}

// The sizes of canvases, which the browser tells when they change; asking for them each time would cost a layout.
const sizes = new WeakMap();
const sizing = new ResizeObserver((entries) => entries.forEach(({ target }) => sizes.set(target, target.getBoundingClientRect())));

// A canvas as sharp as the screen; drawn in CSS pixels.
function fitted(canvas) {
  if (!sizes.get(canvas)?.width) { // new, or hidden when it was measured
    sizes.set(canvas, canvas.getBoundingClientRect());
    sizing.observe(canvas);
  }
  const { width, height } = sizes.get(canvas);
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height, ratio };
}

// A line that may be dashed. (A rectangle without a height goes there and back, which fills the gaps.)
function straight(context, x, y, toX, toY) {
  context.beginPath();
  context.moveTo(x, y);
  context.lineTo(toX, toY);
  context.stroke();
}

// Begins a line; what it returns takes it to the next point, unless that is at the last one as far as can be seen. It begins
// anew after a point that is nowhere.
function begun(context) {
  let [x, y] = [NaN, NaN];
  context.beginPath();
  return (nextX, nextY) => {
    if (Math.abs(nextX - x) < 0.25 && Math.abs(nextY - y) < 0.25) return;
    if (Number.isFinite(x) && Number.isFinite(y)) context.lineTo(nextX, nextY);
    else context.moveTo(nextX, nextY);
    [x, y] = [nextX, nextY];
  };
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
