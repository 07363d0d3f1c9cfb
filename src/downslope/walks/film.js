// The film: what the reader has chosen, the walks that follow from it, and their pictures at the step shown.

const film = JSON.parse(document.getElementById("film").textContent);
const surface = {
  ...film.surface,
  height: HEIGHT,
  second: SECOND,
  flat: film.surface.variables.length === 2,
};
const size = surface.variables.length;
const noise = film.noise ? singles(film.noise) : null;
const codes = RULES.map((code, k) => ({ ...code, response: RESPONSES[k] }));
const walkers = film.rules.map((rule, k) => ({
  ...rule,
  code: codes[k],
  room: roomFor(codes[k], rule.numbers, size, film.steps, true),
  colour: `c${k % 7}`,
  dash: k < 7 ? [] : [7, 4],
  shape: SHAPE_NAMES[k % SHAPE_NAMES.length],
  shown: true,
}));
const EVERY = Math.ceil(film.steps / 600); // of the steps, one is in curves that are not cheap to work out
const find = (id) => document.getElementById(id);
const ground = find("ground");
const curves = find("curves");
const nearness = find("nearness");
const scrubber = find("scrubber");
const handle = find("start");
const still = matchMedia("(prefers-reduced-motion: reduce)");
const chosen = { start: [...film.start], rates: film.rates.kind, shared: film.rates.shared, speed: 1 };
const now = { step: 0, playing: false, since: 0, from: 0, pointed: null };
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
    const way = walked(walker.code, numbers, surface, chosen.start, noise, walker.room);
    const found = walker.limits.find(([lr]) => lr === null || lr === walker.lr);
    const limit = found ? { limit: found[1] ?? Infinity, gain: found[2], held: walker.held } : null;
    const sharpness = sharpnesses(way, walker.code, numbers, surface, limit);
    const sharp = Float64Array.from({ length: Math.floor(film.steps / EVERY) + 1 }, (_, k) => sharpness(k * EVERY));
    const effective = effectiveSteps(way, walker.code, numbers, size);
    Object.assign(walker, way, { limit, sharpness, sharp, effective });
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
  const scene = { surface, walkers, steps: film.steps, every: EVERY, goal, ...now };
  placeHandle(handle, surface, chosen.start, drawGround(ground, scene));
  drawLosses(curves, scene);
  drawNearness(nearness, scene);
  fillNow();
  scrubber.value = now.step;
  scrubber.setAttribute("aria-valuetext", `step ${now.step} of ${film.steps}`);
  find("step").textContent = `${now.step}`;
}

function python() {
  const lr = { best: '"best"', own: '"own"', same: String(chosen.shared) }[chosen.rates];
  const start = chosen.start.map((value) => String(value)).join(", ");
  const parts = [film.python.surface, `[${film.python.rules.join(", ")}]`, `start=(${start}${size === 1 ? "," : ""})`];
  parts.push(`steps=${film.steps}`, `lr=${lr}`, ...film.python.rest);
  return `downslope.walk(${parts.join(", ")})`;
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
  const parts = walkers.filter((walker) => walker.shown).map((walker) => {
    const beyond = walker.limit && walker.sharpness(now.step) >= walker.limit.limit;
    return `${walker.name}: loss ${short(walker.losses[now.step])}${beyond ? ", beyond its limit" : ""}`;
  });
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
  for (const canvas of [curves, nearness]) {
    const scrubTo = (event) => {
      const box = canvas.getBoundingClientRect();
      show(((event.clientX - box.left - MARGIN.left) / (box.width - MARGIN.left - MARGIN.right)) * film.steps);
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      scrubTo(event);
    });
    canvas.addEventListener("pointermove", (event) => canvas.hasPointerCapture(event.pointerId) && scrubTo(event));
  }
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
