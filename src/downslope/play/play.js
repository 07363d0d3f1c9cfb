// The page: what changes the state, and what is shown of it.

const ground = find("ground");
const handle = find("start");
let asked = false;

// Changes the state, and all that follows from it.
function change(patch, { quiet = false } = {}) {
  const other = "surface" in patch && patch.surface !== state.surface;
  Object.assign(state, patch);
  if (other) {
    state.shape = patch.shape ?? {};
    if (!("start" in patch)) state.start = [...surfaceNamed(state.surface).start];
  }
  if (!state.rules.includes(state.look)) state.look = state.rules[0];
  recompute();
  if (!quiet) showState();
  for (const module of mounted) module.changed?.(page);
  keep();
  ask();
}

// Pictures are drawn at most once per frame, however much has changed.
function ask() {
  if (asked) return;
  asked = true;
  requestAnimationFrame((time) => {
    asked = false;
    if (now.playing) advance(time);
    draw();
  });
}

function draw() {
  const drawn = scene();
  placeHandle(handle, surface, state.start, drawGround(ground, drawn));
  drawLosses(find("curves"), drawn);
  find("scrubber").value = now.step;
  find("scrubber").setAttribute("aria-valuetext", say("step.of", { step: now.step, steps: state.steps }));
  find("step").textContent = `${now.step}`;
  for (const module of mounted) module.drawn?.(page);
}

// Keeps the link up to date, a little later, since browsers count how often that is done.
let keeping = 0;
function keep() {
  state.t = now.playing ? 0 : now.step;
  if (keeping) return;
  keeping = setTimeout(() => {
    keeping = 0;
    const link = writeLink();
    if (location.hash !== link) history.replaceState(null, "", link);
  }, 400);
}

// What is told to who does not see it.
function tell() {
  const parts = walkers.filter((walker) => walker.shown).map((walker) => say("told.walker", { name: walker.name, loss: short(walker.losses[now.step]) }));
  find("said").textContent = `${say("step.of", { step: now.step, steps: state.steps })}. ${parts.join("; ")}.`;
}

function moveStart(values) {
  const digits = surface.ranges.map(([low, high]) => Math.max(0, 3 - Math.floor(Math.log10(high - low))));
  const start = values.map((value, i) => {
    const [low, high] = surface.ranges[i];
    return Number(Math.max(low, Math.min(high, value)).toFixed(digits[i]));
  });
  change({ start });
}

function listenToStart() {
  handle.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!way || (!surface.flat && way[1])) return;
    event.preventDefault();
    moveStart(state.start.map((value, i) => value + (way[i] * (surface.ranges[i][1] - surface.ranges[i][0])) / 100));
  });
  const to = (event) => {
    const box = ground.getBoundingClientRect();
    const parts = [(event.clientX - box.left) / box.width, 1 - (event.clientY - box.top) / box.height];
    moveStart(state.start.map((_, i) => surface.ranges[i][0] + parts[i] * (surface.ranges[i][1] - surface.ranges[i][0])));
  };
  handle.addEventListener("pointerdown", (event) => handle.setPointerCapture(event.pointerId));
  handle.addEventListener("pointermove", (event) => handle.hasPointerCapture(event.pointerId) && to(event));
  ground.addEventListener("click", to);
}

// Shows the state in all that it can be changed with.
function showState() {
  document.documentElement.lang = words.language = state.lang;
  sayAll();
  find("surface").value = state.surface;
  find("teaches").textContent = isSaid(`surface.${state.surface}.teaches`) ? say(`surface.${state.surface}.teaches`) : "";
  find("scrubber").max = state.steps;
  find("steps").textContent = state.steps.toLocaleString(state.lang);
  find("speed").value = String(state.speed);
  for (const button of document.querySelectorAll("[data-lang]")) button.setAttribute("aria-pressed", String(button.dataset.lang === state.lang));
  for (const button of document.querySelectorAll("[data-rates]")) {
    const kind = typeof state.lr === "number" ? "same" : state.lr;
    button.setAttribute("aria-pressed", String(button.dataset.rates === kind));
  }
  for (const each of document.querySelectorAll("[data-part]")) each.hidden = state.hide.includes(each.dataset.part);
  showStart();
  showPlaying();
  showWalkers();
}

function showStart() {
  const places = surface.variables.map((name, i) => `${name} = ${short(state.start[i])}`).join(", ");
  handle.setAttribute("aria-label", say("start.handle", { places }));
  find("places").replaceChildren(
    ...surface.variables.map((name, i) =>
      make("label", {}, make("i", { textContent: name }), " ", make("input", {
        type: "number", step: "any", autocomplete: "off", value: state.start[i],
        onchange: (event) => {
          const value = event.target.value.trim() === "" ? NaN : Number(event.target.value);
          if (Number.isFinite(value)) moveStart(state.start.map((old, k) => (k === i ? value : old)));
          else showStart();
        },
      })),
    ),
  );
}

// A button for each walker, which shows or hides it.
function showWalkers() {
  find("walkers").replaceChildren(
    ...walkers.map((walker) => {
      const key = make("canvas", { className: "key" });
      const button = make("button", {
        type: "button", className: "chip", title: say("walker.toggle"),
        onclick: () => change({ off: walker.shown ? [...state.off, walker.id] : state.off.filter((id) => id !== walker.id) }),
      }, key, walker.name);
      button.setAttribute("aria-pressed", String(walker.shown));
      button.addEventListener("pointerenter", () => point(walker));
      button.addEventListener("pointerleave", () => point(null));
      walker.key = key;
      return make("li", {}, button);
    }),
  );
  drawKeys();
}

function point(walker) {
  now.pointed = walker?.shown ? walker : null;
  ask();
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

function buildChoices() {
  const groups = [["one-weight", 1], ["two-weights", 2]].map(([key, count]) => {
    const group = make("optgroup");
    group.dataset.key = key;
    const those = Object.values(SURFACES).filter((each) => each.variables.length === count);
    group.append(...those.map((each) => make("option", { value: each.name, textContent: each.name.replaceAll("_", " ") })));
    return group;
  });
  find("surface").append(...groups);
  find("surface").addEventListener("change", (event) => change({ surface: event.target.value }));
  for (const button of document.querySelectorAll("[data-lang]")) button.addEventListener("click", () => change({ lang: button.dataset.lang }));
  for (const button of document.querySelectorAll("[data-rates]")) {
    button.addEventListener("click", () => change({ lr: button.dataset.rates === "same" ? 0.1 : button.dataset.rates }));
  }
}

// What was left out of a link is said.
function showLeft(left) {
  find("left").hidden = !left.length;
  find("left-list").replaceChildren(...left.map(([key, why]) => make("li", {}, make("code", { textContent: key }), ` ${why}`)));
}

function openLink(link) {
  const left = readLink(link);
  now.step = state.t;
  recompute();
  now.step = Math.min(state.t, state.steps);
  showState();
  showLeft(left);
  for (const module of mounted) module.changed?.(page);
  ask();
}

// What a module is given.
const page = {
  state, change, say, show, play, stop, ask, openLink,
  get surface() { return surface; },
  get walkers() { return walkers; },
  get now() { return now; },
};
const mounted = [];

buildChoices();
listenToTransport();
listenToStart();
scrubOn(find("curves"));
find("left-close").addEventListener("click", () => showLeft([]));
for (const { place, mount } of MODULES) mounted.push(mount(page, find(place)) ?? {});
openLink(location.hash.length > 1 ? location.hash : PLAY.link);
addEventListener("hashchange", () => location.hash !== writeLink() && openLink(location.hash));
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
if (still.matches) show(state.t || state.steps);
else if (!state.t) play();
