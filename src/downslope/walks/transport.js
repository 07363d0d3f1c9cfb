// Going through the steps: play, pause, one step, anywhere; and putting the start somewhere else.

// Listens to the buttons and gives { play, stop, show, advance }. `now` has the step; `film` says how many there are, how
// fast they go by, what the button is called, and is told when something is to be drawn or said.
function transport(now, { steps, speed, whole, label, ask, tell }) {
  const button = document.getElementById("play");
  const labelled = () => {
    button.classList.toggle("playing", now.playing);
    button.setAttribute("aria-label", label(now.playing));
  };
  const play = () => {
    if (now.step >= steps()) now.step = 0;
    Object.assign(now, { playing: true, since: performance.now(), from: now.step });
    labelled();
    ask();
  };
  const stop = () => {
    now.playing = false;
    labelled();
    tell();
  };
  const show = (step) => {
    if (now.playing) stop();
    now.step = Math.max(0, Math.min(steps(), Math.round(step)));
    tell();
    ask();
  };
  // To where the film is at a time.
  const advance = (time) => {
    now.step = Math.min(steps(), now.from + Math.max(0, Math.floor(((time - now.since) / whole) * speed() * steps())));
    if (now.step >= steps()) stop();
    else ask();
  };
  const toggle = () => (now.playing ? stop() : play());
  const go = { play: toggle, back: () => show(now.step - 1), forth: () => show(now.step + 1), first: () => show(0) };
  for (const [id, act] of Object.entries(go)) document.getElementById(id)?.addEventListener("click", act);
  document.getElementById("scrubber").addEventListener("input", (event) => show(Number(event.target.value)));
  document.getElementById("speed").addEventListener("change", () => now.playing && play());
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, select, textarea, button, a, pre, summary, math, [tabindex]")) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = { " ": toggle, ArrowLeft: go.back, ArrowRight: go.forth }[event.key];
    if (!act) return;
    act();
    event.preventDefault();
  });
  return { play, stop, show, advance, labelled };
}

// Scrubbing on a canvas whose width is the steps.
function scrubOn(canvas, steps, show) {
  dragOn(canvas, (x, width) => show(((x - MARGIN.left) / (width - MARGIN.left - MARGIN.right)) * steps()));
}

// Tells where on an element it is pressed, and where the pointer goes from there.
function dragOn(element, to, measuredOn = element) {
  const tell = (event, first) => {
    const box = measuredOn.getBoundingClientRect();
    to(event.clientX - box.left, box.width, event.clientY - box.top, box.height, first);
  };
  element.addEventListener("pointerdown", (event) => {
    element.setPointerCapture(event.pointerId);
    if (element === measuredOn) tell(event, true);
  });
  element.addEventListener("pointermove", (event) => element.hasPointerCapture(event.pointerId) && tell(event, false));
}

// A handle on the ground that puts the start somewhere else, by dragging, with the arrow keys or by a click on the ground.
function startHandle(handle, ground, { surface, start, move }) {
  const spans = () => surface().ranges.map(([low, high]) => high - low);
  handle.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!way || (!surface().flat && way[1])) return;
    event.preventDefault();
    move(start().map((value, i) => value + (way[i] * spans()[i]) / 100));
  });
  const to = (x, width, y, height) => {
    const parts = [x / width, 1 - y / height];
    move(start().map((_, i) => surface().ranges[i][0] + parts[i] * spans()[i]));
  };
  dragOn(handle, to, ground);
  ground.addEventListener("click", ({ offsetX, offsetY }) => to(offsetX, ground.clientWidth, offsetY, ground.clientHeight));
}

// A place within the ranges of a surface, to as many digits as can be told apart there.
function placeWithin(surface, values) {
  const digits = surface.ranges.map(([low, high]) => Math.max(0, 3 - Math.floor(Math.log10(high - low))));
  return values.map((value, i) => {
    const [low, high] = surface.ranges[i];
    return Number(Math.max(low, Math.min(high, value)).toFixed(digits[i]));
  });
}
