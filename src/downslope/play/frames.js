// Frames: what is worked out, drawn and written in each of them. What rests is shown whole. While something moves, what there
// is to do takes turns, so that a frame is short however much is on the page and however slow the machine. After the last
// turn there is one frame more, in which nothing moves: it shows all as it is.

const ROOM = 1; // the milliseconds of a frame after which no other turn is begun
const SLICE = 1; // of a turn in which something is worked out
const PAUSE = 100; // between the beginnings of two rounds in which words are written, which is as fast as they can be read

const ground = find("ground");
const handle = find("start");
let asked = false;
let dragging = false;
let changed = false; // since what the state says was last written
let unwritten = []; // what of a round of writing is still to be done
let roundBegun = 0;
let turnsTaken = 0;

addEventListener("pointerdown", () => (dragging = true), true);
for (const end of ["pointerup", "pointercancel"]) {
  addEventListener(end, () => {
    dragging = false;
    ask();
  }, true);
}

// Pictures are drawn at most once per frame, however much has changed.
function ask() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(frame);
}

function frame(time) {
  asked = false;
  if (now.playing) going.advance(time);
  const busy = changed || unwritten.length > 0 || isWaiting() || !isTried() || !isClouded();
  if (busy) ask();
  if (now.playing || (dragging && busy)) return takeTurns(time);
  if (changed || unwritten.length) showChanged();
  work(12);
  draw();
}

const TURNS = [drawStage, walkSome, writeSome, drawSteps, drawStage, walkSome, writeSome, drawRates, drawStage, trySome, writeSome, drawClosely];

function takeTurns(time) {
  const end = performance.now() + ROOM;
  if (isStaged() && sizes.has(ground)) placeStart(sizes.get(ground));
  showStep();
  for (let k = 0; k < TURNS.length && (k === 0 || performance.now() < end); k++) TURNS[turnsTaken++ % TURNS.length](time);
}

function walkSome() {
  work(SLICE, isWaiting());
}

function trySome() {
  work(SLICE, isWaiting() && isTried());
}

// Works out what there is to be worked out, walks first or not.
function work(milliseconds, walks = isWaiting()) {
  if (walks) {
    walkOn(milliseconds);
    changed = true;
  } else if (!isTried()) {
    tryRates(milliseconds);
    changed ||= state.lr === "best";
  } else if (!isClouded()) workClouds(milliseconds);
}

const isStaged = () => !state.hide.includes("stage");

function placeStart({ width, height }) {
  placeHandle(handle, surface, state.start, { width, height, place: placed(surface, width, height) });
}

function drawStage() {
  if (!isStaged()) return;
  const drawing = drawGround(ground, scene());
  placeStart(drawing);
  drawClouds(drawing);
  if (lookedAt().shown) drawForces(drawing.context, lookedAt(), drawing.place);
}

function drawSteps() {
  if (isStaged()) drawLosses(find("curves"), scene());
}

function drawRates() {
  if (isStaged()) drawCanyon(find("canyon"));
}

function drawClosely() {
  if (inSight.has(find("closely"))) drawMan(find("man"), lookedAt());
}

// What is in sight, or will be soon: while something moves nothing else is written.
const inSight = new Set();
const sight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) inSight.add(target);
    else inSight.delete(target);
  }
  ask();
}, { rootMargin: "100px" });
for (const id of ["closely", "numbers"]) sight.observe(find(id));

// Some of what is to be read. A round has all that has changed, and what is in sight of the step shown.
function writeSome(time) {
  if (!unwritten.length) {
    if (time - roundBegun < PAUSE) return;
    unwritten = changed ? changes() : [];
    if (inSight.has(find("closely"))) unwritten.push(showFormula);
    if (inSight.has(find("numbers"))) unwritten.push(showNow);
    if (find("weather").open) unwritten.push(fillWeather);
    for (const module of mounted) if (module.drawn) unwritten.push(module.drawn);
    [roundBegun, changed] = [time, false];
  }
  const end = performance.now() + SLICE / 3;
  do unwritten.shift()?.(page);
  while (unwritten.length && performance.now() < end);
}

function showNow() {
  find("at").textContent = `${now.step}`;
  fillNow(scene(), told);
}

// Where the film is.
let stepShown = "";
function showStep() {
  const said = say("step.of", { step: now.step, steps: state.steps });
  if (said === stepShown) return;
  stepShown = said;
  find("scrubber").value = now.step;
  find("scrubber").setAttribute("aria-valuetext", said);
  find("step").textContent = `${now.step}`;
}

// Says in words, and to what is mounted, what has changed.
function showChanged() {
  [changed, unwritten] = [false, []];
  for (const show of changes()) show(page);
}

// All that is to be seen, as it is.
function draw() {
  showStep();
  drawStage();
  drawSteps();
  drawRates();
  drawMan(find("man"), lookedAt());
  showFormula();
  showNow();
  if (find("weather").open) fillWeather();
  for (const module of mounted) module.drawn?.(page);
}
