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
const told = {
  toggle: "Show or hide",
  limitless: "no limit",
  toggled(walker) {
    walker.shown = !walker.shown;
    showShown(walker);
    ask();
  },
  pointed(walker) {
    now.pointed = walker?.shown ? walker : null;
    ask();
  },
};

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
  fillTable({ walkers, steps: film.steps });
  find("python").textContent = python();
  ask();
}

// Pictures are drawn at most once per frame, however much has changed.
function ask() {
  if (asked) return;
  asked = true;
  requestAnimationFrame((time) => {
    asked = false;
    if (now.playing) going.advance(time);
    draw();
  });
}

function draw() {
  const scene = { surface, walkers, steps: film.steps, every: EVERY, goal, ...now };
  placeHandle(handle, surface, chosen.start, drawGround(ground, scene));
  drawLosses(curves, scene);
  drawNearness(nearness, scene);
  find("at").textContent = `${now.step}`;
  fillNow(scene, told);
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

function say() {
  const parts = walkers.filter((walker) => walker.shown).map((walker) => {
    const beyond = walker.limit && walker.sharpness(now.step) >= walker.limit.limit;
    return `${walker.name}: loss ${short(walker.losses[now.step])}${beyond ? ", beyond its limit" : ""}`;
  });
  find("said").textContent = `Step ${now.step} of ${film.steps}. ${parts.join("; ")}.`;
}

function moveStart(values) {
  chosen.start = placeWithin(surface, values);
  showStart();
  recompute();
}

function showStart() {
  surface.variables.forEach((name, i) => (find(`at-${name}`).value = chosen.start[i]));
  handle.setAttribute("aria-label", `Start, at ${chosen.start.map(short).join(", ")}: drag it, or use the arrow keys`);
}

function listen() {
  find("speed").addEventListener("change", (event) => (chosen.speed = Number(event.target.value)));
  startHandle(handle, ground, { surface: () => surface, start: () => chosen.start, move: moveStart });
  for (const canvas of [curves, nearness]) scrubOn(canvas, () => film.steps, (step) => going.show(step));
  surface.variables.forEach((name, i) => {
    find(`at-${name}`).addEventListener("change", (event) => {
      const value = Number(event.target.value);
      if (event.target.value.trim() === "" || !Number.isFinite(value)) showStart();
      else moveStart(chosen.start.map((old, k) => (k === i ? value : old)));
    });
  });
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
    drawKeys(walkers);
    ask();
  }).observe(ground);
  for (const query of ["(prefers-color-scheme: dark)", "print"]) {
    matchMedia(query).addEventListener("change", () => {
      drawKeys(walkers);
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

buildTable(find("walkers"), walkers, surface, told);
listen();
const going = transport(now, {
  steps: () => film.steps,
  speed: () => chosen.speed,
  whole: 8000,
  label: (playing) => (playing ? "Pause" : "Play"),
  ask,
  tell: say,
});
showStart();
showRate();
recompute();
drawKeys(walkers);
if (still.matches) going.show(film.steps);
else going.play();
