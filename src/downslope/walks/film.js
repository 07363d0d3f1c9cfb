// The film: what the reader has chosen, the walks that follow from it, and their pictures at the step shown.

const film = JSON.parse(document.getElementById("film").textContent);
const surface = {
  ...film.surface,
  height: HEIGHT,
  flat: film.surface.variables.length === 2,
};
const size = surface.variables.length;
const noise = film.noise ? singles(film.noise) : null;
const walkers = film.rules.map((rule, k) => ({
  ...rule,
  code: RULES[k],
  colour: `c${k % 7}`,
  dash: k < 7 ? [] : [7, 4],
  shape: SHAPE_NAMES[k % SHAPE_NAMES.length],
  shown: true,
}));
const find = (id) => document.getElementById(id);
const ground = find("ground");
const curves = find("curves");
const scrubber = find("scrubber");
const handle = find("start");
const still = matchMedia("(prefers-reduced-motion: reduce)");
const chosen = { start: [...film.start], rates: film.rates.kind, shared: film.rates.shared, speed: 1 };
const now = { step: 0, playing: false, since: 0, from: 0, pointed: null };
let map = null;
let goal = 0;
let asked = false;

function recompute() {
  const out = new Float64Array(1 + size);
  const first = surface.height(Float64Array.from(chosen.start), out)[0];
  goal = film.goal.part === null ? film.goal.loss : surface.lowest + film.goal.part * (first - surface.lowest);
  for (const walker of walkers) {
    if (!("lr" in walker.numbers)) walker.lr = NaN;
    else if (chosen.rates === "best") {
      walker.lr = bestRate(walker.code, walker.numbers, surface, chosen.start, film.steps, noise, film.grid, goal);
    } else walker.lr = chosen.rates === "same" ? chosen.shared : walker.numbers.lr;
    const numbers = { ...walker.numbers, lr: walker.lr };
    Object.assign(walker, walked(walker.code, numbers, surface, chosen.start, film.steps, noise));
    walker.arrived = arrival(walker.losses, goal, surface.bottomless);
    Object.assign(walker, measured(walker.points, size, Math.min(walker.arrived, film.steps)));
  }
  fillTable();
  ask();
}

// Pictures are drawn at most once per frame, however much has changed.
function ask() {
  if (asked) return;
  asked = true;
  requestAnimationFrame((time) => {
    asked = false;
    if (now.playing) {
      now.step = Math.min(film.steps, now.from + Math.floor(((time - now.since) / 8000) * chosen.speed * film.steps));
      if (now.step >= film.steps) stop();
      else ask();
    }
    draw();
  });
}

function draw() {
  drawGround();
  drawCurves();
  scrubber.value = now.step;
  scrubber.setAttribute("aria-valuetext", `step ${now.step} of ${film.steps}`);
  find("step").textContent = `${now.step}`;
  for (const walker of walkers) walker.cell.textContent = short(walker.losses[now.step]);
}

// Where a point is on the ground's canvas.
function placed(width, height) {
  const [[x0, x1], [y0, y1]] = surface.flat ? surface.ranges : [surface.ranges[0], surface.tall];
  return (x, y) => [((x - x0) / (x1 - x0)) * width, ((y1 - y) / (y1 - y0)) * height];
}

function drawGround() {
  const { context, width, height, ratio } = fitted(ground);
  if (surface.flat) {
    if (!map || map.width !== Math.round(width * ratio) || map.theme !== colour("page")) {
      map = mapped(surface, width, height, ratio);
      map.theme = colour("page");
    }
    context.drawImage(map, 0, 0, width, height);
  } else drawHill(context, width, height);
  const place = placed(width, height);
  drawScale(context, width, height, place);
  context.strokeStyle = colour("ink");
  context.lineWidth = 1.6;
  for (const minimum of surface.minima) {
    const [x, y] = place(minimum[0], surface.flat ? minimum[1] : surface.lowest);
    context.beginPath();
    context.moveTo(x - 5, y);
    context.lineTo(x + 5, y);
    context.moveTo(x, y - 5);
    context.lineTo(x, y + 5);
    context.stroke();
  }
  const points = walkers.filter((walker) => walker.shown);
  const front = points.filter((walker) => walker === now.pointed);
  for (const walker of [...points.filter((other) => other !== now.pointed), ...front]) {
    drawWay(context, walker, place, width, height);
  }
  const [x, y] = place(chosen.start[0], surface.flat ? chosen.start[1] : walkers[0].losses[0]);
  handle.style.transform = `translate(${Math.min(width, Math.max(0, x))}px, ${Math.min(height, Math.max(0, y))}px)`;
}

function drawHill(context, width, height) {
  const [x0, x1] = surface.ranges[0];
  const place = placed(width, height);
  const out = new Float64Array(2);
  context.beginPath();
  for (let i = 0; i <= 400; i++) {
    const x = x0 + ((x1 - x0) * i) / 400;
    context.lineTo(...place(x, surface.height([x], out)[0]));
  }
  context.strokeStyle = colour("muted");
  context.lineWidth = 2;
  context.stroke();
  context.lineTo(width, height);
  context.lineTo(0, height);
  context.fillStyle = colour("low");
  context.fill();
}

function drawScale(context, width, height, place) {
  const [xs, ys] = surface.flat ? surface.ranges : [surface.ranges[0], surface.tall];
  context.fillStyle = colour("muted");
  context.font = "11px system-ui, sans-serif";
  context.textAlign = "center";
  for (const x of ticks(...xs, Math.max(3, width / 110))) {
    const [at] = place(x, ys[0]);
    if (at > 14 && at < width - 14) context.fillText(short(x), at, height - 5);
  }
  context.textAlign = "left";
  for (const y of ticks(...ys, Math.max(2, height / 90))) {
    const at = place(xs[0], y)[1];
    if (at > 12 && at < height - 20) context.fillText(short(y), 5, at + 4);
  }
}

function drawWay(context, walker, place, width, height) {
  const faint = now.pointed && now.pointed !== walker;
  const at = (t) => place(walker.points[t * size], surface.flat ? walker.points[t * size + 1] : walker.losses[t]);
  let last = now.step;
  while (last > 0 && !at(last).every(Number.isFinite)) last--;
  const tail = Math.max(0, last - Math.max(12, Math.round(film.steps / 12)));
  context.strokeStyle = colour(walker.colour);
  context.lineJoin = "round";
  context.setLineDash(walker.dash);
  for (const [from, to, opacity] of [[0, tail, 0.45], [tail, last, 1]]) {
    context.globalAlpha = faint ? 0.15 : opacity;
    context.lineWidth = walker === now.pointed ? 3 : 2;
    context.beginPath();
    for (let t = from; t <= to; t++) {
      const [x, y] = at(t);
      context.lineTo(Math.max(-1e4, Math.min(1e4, x)), Math.max(-1e4, Math.min(1e4, y)));
    }
    context.stroke();
  }
  context.setLineDash([]);
  context.globalAlpha = faint ? 0.25 : 1;
  const [x, y] = at(last);
  const inside = x >= 0 && x <= width && y >= 0 && y <= height && last === now.step;
  const edge = inside ? colour("page") : colour(walker.colour);
  const fill = inside ? colour(walker.colour) : colour("page");
  marker(context, walker.shape, Math.max(7, Math.min(width - 7, x)), Math.max(7, Math.min(height - 7, y)), fill, edge);
  context.globalAlpha = 1;
}

function drawCurves() {
  const { context, width, height } = fitted(curves);
  const [left, right, top, bottom] = [52, 10, 10, 24];
  const shown = walkers.filter((walker) => walker.shown);
  const log = !surface.bottomless;
  const first = walkers[0].losses[0] - surface.lowest;
  const above = (loss) => (log ? loss - surface.lowest : loss);
  let low = log ? first : Infinity;
  for (const { losses } of shown) {
    for (const loss of losses) if (Number.isFinite(loss) && (!log || above(loss) > 0)) low = Math.min(low, above(loss));
  }
  const high = log ? 4 * first : walkers[0].losses[0] + 0.4 * Math.abs(walkers[0].losses[0] - surface.lowest);
  low = log ? Math.max(low / 2, first * 1e-12) : Math.max(low, surface.lowest - Math.abs(high - surface.lowest));
  const scale = log ? (loss) => Math.log10(Math.max(above(loss), low)) : (loss) => loss;
  const [bottomValue, topValue] = log ? [Math.log10(low), Math.log10(high)] : [low, high];
  const x = (t) => left + ((width - left - right) * t) / film.steps;
  const y = (loss) => top + ((height - top - bottom) * (topValue - scale(loss))) / (topValue - bottomValue);
  context.font = "11px system-ui, sans-serif";
  context.lineWidth = 1;
  context.textAlign = "right";
  for (const value of log ? decades(bottomValue, topValue) : ticks(low, high, 4)) {
    const at = top + ((height - top - bottom) * (topValue - value)) / (topValue - bottomValue);
    context.strokeStyle = colour("grid");
    context.strokeRect(left, at, width - left - right, 0);
    context.fillStyle = colour("muted");
    context.fillText(log ? short(10 ** value) : short(value), left - 6, at + 4);
  }
  context.textAlign = "center";
  for (const t of ticks(0, film.steps, width / 90)) context.fillText(short(t), x(t), height - 6);
  context.setLineDash([2, 4]);
  context.strokeStyle = colour("ink");
  context.strokeRect(left, y(goal), width - left - right, 0);
  context.setLineDash([]);
  context.save();
  context.beginPath();
  context.rect(left, top, width - left - right, height - top - bottom);
  context.clip();
  for (const walker of shown) {
    const faint = now.pointed && now.pointed !== walker;
    context.strokeStyle = colour(walker.colour);
    context.setLineDash(walker.dash);
    context.lineWidth = walker === now.pointed ? 3 : 1.8;
    for (const [from, to, opacity] of [[0, now.step, 1], [now.step, film.steps, 0.25]]) {
      context.globalAlpha = faint ? 0.12 : opacity;
      context.beginPath();
      for (let t = from; t <= to && Number.isFinite(walker.losses[t]); t++) context.lineTo(x(t), y(walker.losses[t]));
      context.stroke();
    }
    context.globalAlpha = 1;
    context.setLineDash([]);
  }
  context.restore();
  context.strokeStyle = colour("muted");
  context.strokeRect(x(now.step), top, 0, height - top - bottom);
  for (const walker of shown) {
    const loss = walker.losses[now.step];
    if (!Number.isFinite(loss) || y(loss) < top) continue;
    if (now.pointed && now.pointed !== walker) continue;
    marker(context, walker.shape, x(now.step), Math.min(y(loss), height - bottom), colour(walker.colour), colour("page"), 0.9);
  }
}

function decades(low, high) {
  const every = Math.max(1, Math.ceil((high - low) / 5));
  const found = [];
  for (let k = Math.ceil(low); k <= high; k++) if (k % every === 0) found.push(k);
  return found;
}

function fillTable() {
  const soonest = Math.min(...walkers.map((walker) => walker.arrived));
  for (const walker of walkers) {
    const arrived = walker.arrived <= film.steps;
    walker.row.classList.toggle("best", arrived && walker.arrived === soonest);
    const finite = Number.isFinite(walker.length);
    const roundabout = walker.length / walker.distance;
    const cells = [short(walker.lr), arrived ? String(walker.arrived) : "–", finite ? short(roundabout) : "∞", String(walker.turns)];
    cells.forEach((text, k) => (walker.row.cells[2 + k].textContent = text));
  }
  find("python").textContent = python();
}

function python() {
  const lr = { best: '"best"', own: '"own"', same: String(chosen.shared) }[chosen.rates];
  const start = chosen.start.map((value) => String(value)).join(", ");
  const parts = [film.python.surface, `[${film.python.rules.join(", ")}]`, `start=(${start}${size === 1 ? "," : ""})`];
  parts.push(`steps=${film.steps}`, `lr=${lr}`, ...film.python.rest);
  return `downslope.walk(${parts.join(", ")})`;
}

function buildTable() {
  for (const walker of walkers) {
    const row = find("walkers").insertRow();
    const head = document.createElement("th");
    head.scope = "row";
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    button.title = "Show or hide";
    const key = document.createElement("canvas");
    key.className = "key";
    button.append(key, walker.name);
    button.addEventListener("click", () => {
      walker.shown = !walker.shown;
      button.setAttribute("aria-pressed", String(walker.shown));
      row.classList.toggle("hidden", !walker.shown);
      ask();
    });
    head.append(button);
    row.append(head);
    for (let k = 0; k < 5; k++) row.insertCell().className = "number";
    walker.cell = row.cells[1];
    walker.row = row;
    walker.key = key;
    for (const [event, pointed] of [["pointerenter", walker], ["pointerleave", null], ["focusin", walker], ["focusout", null]]) {
      row.addEventListener(event, () => {
        now.pointed = pointed && walker.shown ? pointed : null;
        ask();
      });
    }
  }
}

function drawKeys() {
  for (const walker of walkers) {
    const { context, width, height } = fitted(walker.key);
    context.strokeStyle = colour(walker.colour);
    context.lineWidth = 2;
    context.setLineDash(walker.dash);
    context.strokeRect(0, height / 2, width, 0);
    context.setLineDash([]);
    marker(context, walker.shape, width / 2, height / 2, colour(walker.colour), colour("page"), 1);
  }
}

function play() {
  if (now.step >= film.steps) now.step = 0;
  Object.assign(now, { playing: true, since: performance.now(), from: now.step });
  showPlaying();
  ask();
}

function stop() {
  now.playing = false;
  showPlaying();
  say();
}

function showPlaying() {
  find("play").classList.toggle("playing", now.playing);
  find("play").setAttribute("aria-label", now.playing ? "Pause" : "Play");
}

function show(step) {
  if (now.playing) stop();
  now.step = Math.max(0, Math.min(film.steps, Math.round(step)));
  say();
  ask();
}

function say() {
  const parts = walkers.filter((w) => w.shown).map((w) => `${w.name}: loss ${short(w.losses[now.step])}`);
  find("said").textContent = `Step ${now.step} of ${film.steps}. ${parts.join("; ")}.`;
}

function moveStart(values) {
  const digits = surface.ranges.map(([low, high]) => Math.max(0, 3 - Math.floor(Math.log10(high - low))));
  chosen.start = values.map((value, i) => {
    const [low, high] = surface.ranges[i];
    return Number(Math.max(low, Math.min(high, value)).toFixed(digits[i]));
  });
  showStart();
  recompute();
}

function showStart() {
  surface.variables.forEach((name, i) => (find(`at-${name}`).value = chosen.start[i]));
  handle.setAttribute("aria-label", `Start, at ${chosen.start.map(short).join(", ")}: drag it, or use the arrow keys`);
}

function listen() {
  find("play").addEventListener("click", () => (now.playing ? stop() : play()));
  find("back").addEventListener("click", () => show(now.step - 1));
  find("forth").addEventListener("click", () => show(now.step + 1));
  scrubber.addEventListener("input", () => show(Number(scrubber.value)));
  find("speed").addEventListener("change", (event) => {
    chosen.speed = Number(event.target.value);
    if (now.playing) play();
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, select, button, a, pre, summary") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " ") now.playing ? stop() : play();
    else if (event.key === "ArrowLeft") show(now.step - 1);
    else if (event.key === "ArrowRight") show(now.step + 1);
    else return;
    event.preventDefault();
  });
  handle.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!way || (size === 1 && way[1])) return;
    event.preventDefault();
    moveStart(chosen.start.map((value, i) => value + (way[i] * (surface.ranges[i][1] - surface.ranges[i][0])) / 100));
  });
  handle.addEventListener("pointerdown", (event) => handle.setPointerCapture(event.pointerId));
  handle.addEventListener("pointermove", (event) => {
    if (!handle.hasPointerCapture(event.pointerId)) return;
    const box = ground.getBoundingClientRect();
    const parts = [(event.clientX - box.left) / box.width, 1 - (event.clientY - box.top) / box.height];
    moveStart(chosen.start.map((_, i) => surface.ranges[i][0] + parts[i] * (surface.ranges[i][1] - surface.ranges[i][0])));
  });
  surface.variables.forEach((name, i) => {
    find(`at-${name}`).addEventListener("change", (event) => {
      const value = Number(event.target.value);
      if (event.target.value.trim() === "" || !Number.isFinite(value)) showStart();
      else moveStart(chosen.start.map((old, k) => (k === i ? value : old)));
    });
  });
  const scrubTo = (event) => {
    const box = curves.getBoundingClientRect();
    show(((event.clientX - box.left - 52) / (box.width - 62)) * film.steps);
  };
  curves.addEventListener("pointerdown", (event) => {
    curves.setPointerCapture(event.pointerId);
    scrubTo(event);
  });
  curves.addEventListener("pointermove", (event) => curves.hasPointerCapture(event.pointerId) && scrubTo(event));
  for (const choice of document.querySelectorAll("input[name=rates]")) {
    choice.checked = choice.value === chosen.rates;
    choice.addEventListener("change", () => {
      chosen.rates = choice.value;
      showRate();
      recompute();
    });
  }
  find("rate").max = film.grid.length - 1;
  find("rate").addEventListener("input", (event) => {
    chosen.shared = film.grid[Number(event.target.value)];
    chosen.rates = "same";
    document.querySelector("input[name=rates][value=same]").checked = true;
    showRate();
    recompute();
  });
  find("copy").addEventListener("click", async () => {
    const range = document.createRange();
    range.selectNodeContents(find("python"));
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    let copied = false;
    try {
      await navigator.clipboard.writeText(find("python").textContent);
      copied = true;
    } catch {
      copied = document.execCommand("copy");
    }
    find("copy").textContent = copied ? "Copied" : "Selected";
    setTimeout(() => (find("copy").textContent = "Copy"), 1500);
  });
  new ResizeObserver(() => {
    drawKeys();
    ask();
  }).observe(ground);
  for (const query of ["(prefers-color-scheme: dark)", "print"]) {
    matchMedia(query).addEventListener("change", () => {
      map = null;
      drawKeys();
      draw();
    });
  }
}

function showRate() {
  const places = film.grid.map((rate, k) => [Math.abs(Math.log(rate / chosen.shared)), k]);
  find("rate").value = places.reduce((a, b) => (b[0] < a[0] ? b : a))[1];
  find("rate").setAttribute("aria-valuetext", short(chosen.shared));
  find("shared").textContent = short(chosen.shared);
}

buildTable();
listen();
showStart();
showRate();
recompute();
drawKeys();
if (still.matches) show(film.steps);
else play();
