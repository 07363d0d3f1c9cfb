// The page: what changes the state, and what is shown of it.

const [parts, languages, rateKinds] = ["part", "lang", "rates"].map((name) => [...document.querySelectorAll(`[data-${name}]`)]);
const WAITS = ["start", "lr", "settings"]; // while these are dragged, words follow a tenth of a second later
const told = {
  get toggle() { return say("walker.toggle"); },
  get limitless() { return say("limitless"); },
  toggled: (walker) => change({ off: walker.shown ? [...state.off, walker.id] : state.off.filter((id) => id !== walker.id) }),
  pointed(walker) {
    now.pointed = walker?.shown ? walker : null;
    ask();
  },
};

// Changes the state, and all that follows from it.
function change(patch) {
  const other = "surface" in patch && patch.surface !== state.surface;
  Object.assign(state, patch);
  if (other) {
    state.shape = patch.shape ?? {};
    state.window = patch.window ?? KEYS.window.fallback(state);
    if (!("start" in patch)) state.start = [...groundOf(state).start];
  }
  if (!state.rules.includes(state.look)) state.look = state.rules[0];
  state.off = state.off.filter((id) => state.rules.includes(id));
  recompute(!dragging);
  changed = true;
  if (!dragging || Object.keys(patch).some((key) => !WAITS.includes(key))) showChanged();
  keep();
  ask();
}

// Keeps the link up to date, a little later, since browsers count how often that is done.
let keeping = 0;
function keep() {
  state.t = now.playing ? 0 : now.step;
  if (keeping) return;
  keeping = setTimeout(() => {
    keeping = 0;
    if (dragging) return keep();
    const link = writeLink();
    if (location.hash !== link) history.replaceState(null, "", link);
  }, 400);
}

// What is told to who does not see it.
function tell() {
  const parts = walkers.filter((walker) => walker.shown).map((walker) => say("told.walker", { name: walker.name, loss: short(walker.losses[now.step]) }));
  find("said").textContent = `${say("step.of", { step: now.step, steps: state.steps })}. ${parts.join("; ")}.`;
}

const moveStart = (values) => change({ start: placeWithin(surface, values) });

// What shows the state, in the order in which it is to be done.
const changes = () => [showLanguage, showChoices, showHeads, showStart, showWalkers, showNumbers, showClosely, showSettings, showWeather, showShare, showAdd, ...mounted.map((module) => module.changed ?? Boolean)];

let said = false;
function showLanguage() {
  if (document.documentElement.lang === state.lang && said) return;
  said = true;
  document.documentElement.lang = words.language = state.lang;
  sayAll();
  for (const group of find("surface").querySelectorAll("optgroup")) group.label = say(group.dataset.key);
  for (const option of find("surface").options) option.textContent = option.value ? surfaceCalled(option.value) : say("formula.type");
}

function showChoices() {
  find("surface").value = isTyped() ? "" : state.surface;
  find("teaches").textContent = isSaid(`surface.${state.surface}.teaches`) ? say(`surface.${state.surface}.teaches`) : "";
  find("scrubber").max = state.steps;
  find("steps").textContent = state.steps.toLocaleString(state.lang);
  find("step-count").value = state.steps;
  find("speed").value = String(state.speed);
  for (const button of languages) button.setAttribute("aria-pressed", String(button.dataset.lang === state.lang));
  for (const button of rateKinds) {
    const kind = typeof state.lr === "number" ? "same" : state.lr;
    button.setAttribute("aria-pressed", String(button.dataset.rates === kind));
  }
  for (const each of parts) each.hidden = state.hide.includes(each.dataset.part);
  going.labelled();
}

// The heads of the table's columns that depend on how many weights there are.
function showHeads() {
  find("at-step").colSpan = 3 + surface.variables.length;
  [...document.querySelectorAll("th.axis")].forEach((head, i) => {
    head.hidden = i >= surface.variables.length;
    head.textContent = say("column.step", { axis: surface.variables[i] ?? "" });
  });
}

let placesFor = null;
function showStart() {
  const places = surface.variables.map((name, i) => `${name} = ${short(state.start[i])}`).join(", ");
  handle.setAttribute("aria-label", say("start.handle", { places }));
  if (placesFor !== surface.variables.length) {
    placesFor = surface.variables.length;
    find("places").replaceChildren(
      ...surface.variables.map((name, i) =>
        make("label", {}, make("i", { textContent: name }), " ", make("input", {
          type: "number", step: "any", autocomplete: "off",
          onchange: (event) => {
            const value = event.target.value.trim() === "" ? NaN : Number(event.target.value);
            if (Number.isFinite(value)) moveStart(state.start.map((old, k) => (k === i ? value : old)));
            else showStart();
          },
        })),
      ),
    );
  }
  find("places").querySelectorAll("input").forEach((input, i) => (input.value = state.start[i]));
}

// A button for each walker, which shows or hides it, and a row of the table; made anew when there are others.
let shownFor = [];
function showWalkers() {
  const key = [state.lang, surface.variables.length, ...walkers, ...walkers.map((walker) => walker.form)];
  if (key.length !== shownFor.length || key.some((value, k) => value !== shownFor[k])) {
    shownFor = key;
    buildTable(find("rows"), walkers, surface, told);
    find("chips").replaceChildren(...walkers.map(chipOf));
    drawAllKeys();
  }
  for (const walker of walkers) {
    showShown(walker);
    walker.chip.setAttribute("aria-pressed", String(walker.shown));
  }
}

function chipOf(walker) {
  walker.chipKey = make("canvas", { className: "key" });
  walker.chipSays = make("small");
  walker.chip = make("button", {
    type: "button", className: "chip", title: say("walker.toggle"),
    onclick: () => told.toggled(walker),
    onpointerenter: () => told.pointed(walker),
    onpointerleave: () => told.pointed(null),
  }, walker.chipKey, walker.name, walker.chipSays);
  return make("li", {}, walker.chip);
}

// What is said of the whole walk.
function showNumbers() {
  fillTable({ walkers, steps: state.steps });
  for (const { chipSays, arrived } of walkers) chipSays.textContent = arrived <= state.steps ? say("chip.arrived", { steps: arrived }) : "";
  showRate();
}

function drawAllKeys() {
  drawKeys(walkers);
  for (const walker of walkers) drawKey(walker.chipKey, walker);
}

// What a surface is called, in the language of the page.
const surfaceCalled = (name) => (isSaid(`surface.${name}.name`) ? say(`surface.${name}.name`) : name.replaceAll("_", " "));

function buildChoices() {
  const groups = [["one-weight", 1], ["two-weights", 2]].map(([key, count]) => {
    const group = make("optgroup");
    group.dataset.key = key;
    const those = Object.values(SURFACES).filter((each) => each.variables.length === count);
    group.append(...those.map((each) => make("option", { value: each.name })));
    return group;
  });
  find("surface").append(...groups, make("option", { value: "" }));
  find("surface").addEventListener("change", (event) => change({ surface: event.target.value || find("formula-text").value || EXAMPLE_SURFACE }));
  for (const button of document.querySelectorAll("[data-lang]")) button.addEventListener("click", () => change({ lang: button.dataset.lang }));
}

// What was left out of a link is said.
function showLeft(left) {
  find("left").hidden = !left.length;
  find("left-list").replaceChildren(...left.map(([key, why]) => make("li", {}, make("code", { textContent: key }), ` ${why}`)));
}

function openLink(link) {
  const left = readLink(link);
  now.step = state.t;
  recompute(!dragging);
  now.step = Math.min(state.t, state.steps);
  showChanged();
  showLeft(left);
  ask();
}

// What a module is given.
const page = {
  state, change, say, ask, openLink,
  show: (step) => going.show(step),
  play: () => going.play(),
  stop: () => going.stop(),
  get surface() { return surface; },
  get walkers() { return walkers; },
  get now() { return now; },
};
const mounted = [];

document.documentElement.classList.add("scripted");
buildChoices();
const going = transport(now, {
  steps: () => state.steps,
  speed: () => Number(find("speed").value),
  whole: 9000,
  label: (playing) => say(playing ? "pause" : "play"),
  ask,
  tell() {
    tell();
    keep();
  },
});
find("speed").addEventListener("change", (event) => change({ speed: Number(event.target.value) }));
startHandle(handle, ground, { surface: () => surface, start: () => state.start, move: moveStart });
scrubOn(find("curves"), () => state.steps, going.show);
addEventListener("beforeprint", () => { // on paper all is in sight and known, and nothing moves
  going.show(now.step);
  dragging = false;
  while (isWaiting() || !isTried() || !isClouded()) work(100);
  showChanged();
});
listenToCanyon();
listenClosely();
listenToSettings();
listenToWeather();
listenToShare();
find("left-close").addEventListener("click", () => showLeft([]));
for (const { place, mount } of MODULES) mounted.push(mount(page, find(place)) ?? {});
openLink(location.hash.length > 1 ? location.hash : PLAY.link);
addEventListener("hashchange", () => location.hash !== writeLink() && openLink(location.hash));
new ResizeObserver(() => {
  drawAllKeys();
  ask();
}).observe(ground);
for (const query of ["(prefers-color-scheme: dark)", "print"]) {
  matchMedia(query).addEventListener("change", () => {
    drawAllKeys();
    draw();
  });
}
if (matchMedia("(prefers-reduced-motion: reduce)").matches) going.show(state.t || state.steps);
else if (!state.t) going.play();
