// Going through the steps: play, pause, one step, anywhere.

const still = matchMedia("(prefers-reduced-motion: reduce)");
const WHOLE = 9000; // milliseconds for all steps at speed 1

function play() {
  if (now.step >= state.steps) now.step = 0;
  Object.assign(now, { playing: true, since: performance.now(), from: now.step });
  showPlaying();
  ask();
}

function stop() {
  now.playing = false;
  showPlaying();
  tell();
  keep();
}

function showPlaying() {
  find("play").classList.toggle("playing", now.playing);
  find("play").setAttribute("aria-label", say(now.playing ? "pause" : "play"));
}

function show(step) {
  if (now.playing) stop();
  now.step = Math.max(0, Math.min(state.steps, Math.round(step)));
  tell();
  keep();
  ask();
}

// How far the film has gone at a time.
function advance(time) {
  now.step = Math.min(state.steps, now.from + Math.floor(((time - now.since) / WHOLE) * state.speed * state.steps));
  if (now.step >= state.steps) stop();
  else ask();
}

function listenToTransport() {
  find("play").addEventListener("click", () => (now.playing ? stop() : play()));
  find("back").addEventListener("click", () => show(now.step - 1));
  find("forth").addEventListener("click", () => show(now.step + 1));
  find("first").addEventListener("click", () => show(0));
  find("scrubber").addEventListener("input", (event) => show(Number(event.target.value)));
  find("speed").addEventListener("change", (event) => {
    change({ speed: Number(event.target.value) });
    if (now.playing) play();
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, select, textarea, button, a, pre, summary, [tabindex]")) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " ") now.playing ? stop() : play();
    else if (event.key === "ArrowLeft") show(now.step - 1);
    else if (event.key === "ArrowRight") show(now.step + 1);
    else return;
    event.preventDefault();
  });
}

// Scrubbing on a canvas whose width is the steps.
function scrubOn(canvas) {
  const to = (event) => {
    const box = canvas.getBoundingClientRect();
    show(((event.clientX - box.left - MARGIN.left) / (box.width - MARGIN.left - MARGIN.right)) * state.steps);
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    to(event);
  });
  canvas.addEventListener("pointermove", (event) => canvas.hasPointerCapture(event.pointerId) && to(event));
}
