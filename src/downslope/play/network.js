// The small network on the page: who trains it, how far they are, what they take for what, and their ways on a plane.

const BATCHES = [1, 10, 50, ROWS];
const NET_GOAL = 0.15;
const NET_VIEW = [[-2.1, 2.1], [-1.5, 1.5]]; // of the two inputs

KEYS["net.batch"] = {
  fallback: () => [10],
  read: (text) => text.split(",").map((part) => Number(oneOf(() => BATCHES.map(String)).read(part))),
  write: (sizes) => sizes.join(","),
};
KEYS["net.lr"] = {
  fallback: () => 0.1,
  read: (text) => (text === "best" ? text : Number(oneOf(() => ["best", ...NET_RATES.map(String)]).read(text))),
  write: String,
};
KEYS["net.seed"] = { fallback: () => 1, ...within(1, 9999, true) };

let runs = []; // those who train
const isAsking = () => state.lesson !== "" && state.guess === ""; // a lesson whose answer would be given away
const goalAfter = ({ losses }) => losses.findIndex((loss) => loss < NET_GOAL);

// Who trains: every rule with these batches, or the rule that is looked at with batches of several sizes.
function runsOf({ state, walkers }) {
  const sizes = state["net.batch"];
  const rules = sizes.length > 1 ? walkers.filter((walker) => walker.id === state.look) : walkers;
  const data = moons();
  return rules.flatMap((walker) => sizes.map((size) => ({ walker, size }))).map(({ walker, size }, k) => ({
    id: sizes.length > 1 ? `${walker.id}, ${size}` : walker.id,
    rule: walker.id,
    size,
    code: walker.code,
    numbers: walker.numbers,
    data,
    rowsOf: batches(size, state["net.seed"]),
    rates: "lr" in walker.numbers ? (state["net.lr"] === "best" ? [...NET_RATES] : [state["net.lr"]]) : [NaN],
    training: null,
    trial: null,
    shown: true,
    colour: `c${k % 7}`,
    dash: DASHES[k % DASHES.length],
    shape: SHAPE_NAMES[k % SHAPE_NAMES.length],
  }));
}

// Whether one training is better than another: sooner below the goal, or lower in the end.
function isBetter(a, b) {
  const [first, other] = [a, b].map((each) => (goalAfter(each) < 0 ? Infinity : goalAfter(each)));
  const ends = [a, b].map(({ losses }) => (Number.isFinite(losses[PASSES]) ? losses[PASSES] : Infinity));
  return first < other || (first === other && ends[0] < ends[1]);
}

// One pass of a run; of several learning rates the best training is kept.
function onePass(run, seed) {
  run.trial ??= training(run.code, { ...run.numbers, lr: run.rates[0] }, run.data, run.rowsOf, seed);
  run.training ??= run.trial;
  trainPass(run.trial);
  if (passesOf(run.trial) < PASSES) return;
  if (isBetter(run.trial, run.training)) run.training = run.trial;
  run.trial = null;
  run.rates.shift();
}

const isTrained = () => runs.every((run) => !run.rates.length);

// Trains for so many milliseconds, the one that is least far first.
function trainFor(milliseconds, seed) {
  const end = performance.now() + milliseconds;
  const left = (run) => run.rates.length * PASSES - (run.trial ? passesOf(run.trial) : 0);
  while (!isTrained() && performance.now() < end) onePass(runs.reduce((a, b) => (left(b) > left(a) ? b : a)), seed);
}

function drawBoundary(canvas, weights, data) {
  const { context, width, height } = fitted(canvas);
  const [[x0, x1], [y0, y1]] = NET_VIEW;
  const x = (value) => (width * (value - x0)) / (x1 - x0);
  const y = (value) => (height * (y1 - value)) / (y1 - y0);
  if (weights) {
    const count = 64;
    const ranges = NET_VIEW;
    const values = sampled({ ranges, height: (at, out) => ((out[0] = netOutput(weights, at[0], at[1])), out) }, count);
    const [low, high] = ["loss", "win"].map((name) => colour(name).match(/\w\w/g).map((part) => parseInt(part, 16)));
    const picture = new ImageData(count, count);
    for (let k = 0; k < values.length; k++) {
      const part = 1 / (1 + Math.exp(-values[k]));
      for (let c = 0; c < 3; c++) picture.data[4 * k + c] = low[c] + part * (high[c] - low[c]);
      picture.data[4 * k + 3] = Number.isFinite(values[k]) ? 255 : 0;
    }
    const small = new OffscreenCanvas(count, count);
    small.getContext("2d").putImageData(picture, 0, 0);
    context.drawImage(small, 0.5, 0.5, count - 1, count - 1, 0, 0, width, height);
    context.strokeStyle = colour("ink");
    context.lineWidth = 1.6;
    context.beginPath();
    const [lines] = contours(values, banded(values, [0]), count, [0]);
    for (let k = 0; k < lines.length; k += 4) {
      context.moveTo((lines[k] * width) / (count - 1), (lines[k + 1] * height) / (count - 1));
      context.lineTo((lines[k + 2] * width) / (count - 1), (lines[k + 3] * height) / (count - 1));
    }
    context.stroke();
  }
  const [one, other, page, ink] = ["c0", "c1", "page", "ink"].map(colour);
  for (let k = 0; k < ROWS; k++) {
    const [px, py] = [data.points[2 * k], data.points[2 * k + 1]];
    const isWrong = weights && !(data.classes[k] * netOutput(weights, px, py) > 0);
    marker(context, data.classes[k] > 0 ? "circle" : "up", x(px), y(py), data.classes[k] > 0 ? one : other, isWrong ? ink : page, isWrong ? 1 : 0.65);
  }
}

// The ways of all on their plane: the fuller a dot, the lower the true loss there.
function drawPlane(canvas, plane, pass) {
  const { context, width, height } = fitted(canvas);
  const trained = runs.filter((run) => run.training);
  if (!plane || !trained.length) return;
  const ways = trained.map(({ training }) => Array.from({ length: passesOf(training) + 1 }, (_, k) => (training.losses[k] < 20 ? onPlane(plane, weightsAt(training, k)) : [NaN, NaN])));
  const known = ways.flat().filter(([a]) => Number.isFinite(a));
  const ends = [0, 1].map((axis) => known.reduce(([low, high], point) => [Math.min(low, point[axis]), Math.max(high, point[axis])], [Infinity, -Infinity]));
  const spans = ends.map(([low, high]) => Math.max(high - low, 1e-9));
  const unit = Math.min((width - 36) / spans[0], (height - 36) / spans[1]);
  const at = ([a, b]) => [width / 2 + unit * (a - (ends[0][0] + ends[0][1]) / 2), height / 2 - unit * (b - (ends[1][0] + ends[1][1]) / 2)];
  const all = trained.flatMap(({ training }) => [...training.losses.filter((loss) => loss > 0 && loss < 20)]);
  const [low, high] = [Math.log(Math.min(...all)), Math.log(Math.max(...all))];
  const [ink, paper] = [colour("ink"), colour("page")];
  trained.forEach(({ training, ...run }, k) => {
    context.strokeStyle = colour(run.colour);
    context.setLineDash(run.dash);
    context.lineWidth = 1.8;
    for (const [from, to, opacity] of [[0, pass, 1], [pass, ways[k].length - 1, 0.25]]) {
      context.globalAlpha = opacity;
      const on = begun(context);
      for (let t = from; t <= Math.min(to, ways[k].length - 1); t++) on(...at(ways[k][t]));
      context.stroke();
    }
    context.globalAlpha = 1;
    context.setLineDash([]);
    context.lineWidth = 1.2;
    for (let t = 0; t < Math.min(pass, ways[k].length); t += t < 20 ? 2 : 8) {
      if (!Number.isFinite(ways[k][t][0])) continue;
      context.beginPath();
      context.arc(...at(ways[k][t]), 3.2, 0, 2 * Math.PI);
      context.fillStyle = paper;
      context.fill();
      context.globalAlpha = Math.max(0, Math.min(1, (high - Math.log(training.losses[t])) / (high - low || 1)));
      context.fillStyle = ink;
      context.fill();
      context.globalAlpha = 1;
      context.stroke();
    }
  });
  trained.forEach((run, k) => {
    const point = ways[k][Math.min(pass, ways[k].length - 1)];
    if (Number.isFinite(point[0])) marker(context, run.shape, ...at(point), colour(run.colour), paper);
  });
}

MODULES.push({
  place: "network",
  mount(page, element) {
    const title = make("h2");
    const about = make("p", { className: "small net-about" });
    const batch = make("select");
    const rate = make("select");
    const [batchLabel, rateLabel] = [make("label", {}, make("span"), " ", batch), make("label", {}, make("span"), " ", rate)];
    const again = make("button", { type: "button", onclick: () => page.change({ "net.seed": (page.state["net.seed"] % 9999) + 1 }) });
    const chips = make("div", { className: "net-runs", role: "group" });
    const canvases = ["boundary", "plane", "curves"].map((name) => make("canvas", { id: `net-${name}`, role: "img" }));
    const titles = canvases.map(() => make("h3"));
    const slider = make("input", { type: "range", min: 0, max: PASSES, value: 0, id: "net-pass" });
    const play = make("button", { type: "button", id: "net-play" });
    const shown = make("b", { className: "number" });
    const explained = make("p", { className: "small" });
    const status = make("p", { className: "unseen", role: "status" });
    element.className = "network";
    element.append(
      title, about,
      make("div", { className: "row" }, batchLabel, rateLabel, again),
      chips,
      make("div", { className: "net-pictures" }, ...canvases.map((canvas, k) => make("figure", {}, titles[k], canvas, ...(k === 1 ? [explained] : [])))),
      make("div", { className: "row net-time" }, play, slider, make("span", {}, make("span", { id: "net-at" }), " ", shown)),
      status,
    );
    const moment = { pass: 0, playing: false, from: 0, since: 0 };
    let [made, plane, looping, visible, chosen] = ["", null, false, false, 0];
    const still = matchMedia("(prefers-reduced-motion: reduce)");

    function restart() {
      runs = isAsking() ? [] : runsOf(page);
      [plane, chosen] = [null, Math.max(0, runs.findIndex((run) => run.rule === page.state.look))];
      if (still.matches) Object.assign(moment, { pass: PASSES, playing: false });
      else Object.assign(moment, { pass: 0, playing: true, from: 0, since: performance.now() });
      build();
      loop();
    }

    // Trains and shows, frame by frame, as long as there is something to do and someone can see it.
    function loop() {
      if (looping || !visible || element.hidden) return;
      looping = true;
      requestAnimationFrame((time) => {
        looping = false;
        const working = !isTrained();
        if (working) {
          trainFor(dragging ? SLICE : 8, page.state["net.seed"]);
          plane = planeOf(runs.filter((run) => run.training).map((run) => run.training), plane);
          if (isTrained()) {
            plane = planeOf(runs.map((run) => run.training), null);
            page.ask();
          }
        }
        if (moment.playing) {
          const known = Math.min(PASSES, ...runs.map((run) => (run.training ? passesOf(run.training) : 0)));
          moment.pass = Math.min(known, Math.max(moment.from, moment.from + Math.floor((time - moment.since) / 60)));
          if (moment.pass >= PASSES) stop();
        }
        draw();
        if (!isTrained() || moment.playing) loop();
      });
    }

    function stop() {
      moment.playing = false;
      play.textContent = say("play");
      status.textContent = `${say("net.after", { passes: moment.pass })} ${runs.map((run) => `${run.id}: ${told(run)}`).join("; ")}`;
    }

    const passOf = (training) => Math.min(moment.pass, passesOf(training)); // the one shown, or the last that it has come to
    const told = ({ training }) => (training ? say("net.told", { loss: short(training.losses[passOf(training)]), wrong: training.wrong[passOf(training)], rows: ROWS, lr: short(training.numbers.lr) }) : "");

    function draw() {
      const run = runs[chosen];
      drawBoundary(canvases[0], run?.training && weightsAt(run.training, passOf(run.training)), moonsShown);
      drawPlane(canvases[1], plane, moment.pass);
      const seen = runs.filter((each) => each.training).map((each) => ({ ...each, losses: each.training.losses }));
      const lows = seen.flatMap((each) => [...each.losses.filter((loss) => loss > 0)]);
      if (!seen.length) fitted(canvases[2]);
      else {
        drawCurves(canvases[2], { walkers: seen, steps: PASSES, step: moment.pass, pointed: null }, {
          low: Math.max(1e-4, Math.min(...lows) / 1.5), high: 3, log: true, mark: NET_GOAL, curve: ({ losses }) => curveOf(Array.from(losses, (_, t) => t), (t) => losses[t], true), value: (each, t) => each.losses[t],
        });
      }
      slider.value = moment.pass;
      slider.setAttribute("aria-valuetext", say("net.after", { passes: moment.pass }));
      shown.textContent = `${moment.pass} / ${PASSES}`;
      explained.textContent = plane ? say("net.explained", { part: Math.round(100 * plane.explained), size: NET_SIZE }) : "";
      [...chips.children].forEach((chip, k) => (chip.lastChild.textContent = runs[k].training ? told(runs[k]) : ""));
    }

    // A button for each run, with its numbers; the pressed one's decisions are shown.
    function build() {
      chips.replaceChildren(...runs.map((run, k) => {
        const key = make("canvas", { className: "key" });
        const chip = make("button", { type: "button", className: "net-run", onclick: () => choose(k) }, key, make("b", { textContent: run.id }), make("span", { className: "number" }));
        chip.setAttribute("aria-pressed", String(k === chosen));
        return chip;
      }));
      [...chips.children].forEach((chip, k) => drawKey(chip.firstChild, runs[k]));
    }

    function choose(k) {
      chosen = k;
      [...chips.children].forEach((chip, n) => chip.setAttribute("aria-pressed", String(n === k)));
      draw();
    }

    slider.addEventListener("input", () => {
      if (moment.playing) stop();
      moment.pass = Number(slider.value);
      draw();
    });
    play.addEventListener("click", () => {
      if (moment.playing) return stop();
      if (moment.pass >= PASSES) moment.pass = 0;
      Object.assign(moment, { playing: true, from: moment.pass, since: performance.now() });
      play.textContent = say("pause");
      loop();
    });
    batch.addEventListener("change", () => page.change({ "net.batch": KEYS["net.batch"].read(batch.value) }));
    rate.addEventListener("change", () => page.change({ "net.lr": KEYS["net.lr"].read(rate.value) }));
    new IntersectionObserver(([{ isIntersecting }]) => {
      visible = isIntersecting;
      if (visible) loop();
    }).observe(element);
    new ResizeObserver(() => visible && draw()).observe(canvases[0]);
    for (const query of ["(prefers-color-scheme: dark)", "print"]) {
      matchMedia(query).addEventListener("change", () => {
        build();
        draw();
      });
    }
    addEventListener("beforeprint", () => { // on paper they are trained, seen before or not
      if (element.hidden || !runs.length) return;
      while (!isTrained()) trainFor(100, page.state["net.seed"]);
      plane = planeOf(runs.map((run) => run.training), null);
      if (moment.playing) moment.pass = PASSES;
      if (moment.playing) stop();
      draw();
    });

    function speak() {
      const { state } = page;
      title.textContent = say("net.title");
      about.textContent = say("net.about", { rows: ROWS, size: NET_SIZE, passes: PASSES });
      batchLabel.firstChild.textContent = say("net.batch");
      rateLabel.firstChild.textContent = say("net.rate");
      again.textContent = say("net.again");
      find("net-at").textContent = say("net.pass");
      play.textContent = say(moment.playing ? "pause" : "play");
      slider.setAttribute("aria-label", say("net.pass"));
      chips.setAttribute("aria-label", say("net.runs"));
      ["boundary", "plane", "curves"].forEach((name, k) => {
        titles[k].textContent = say(`net.${name}`);
        canvases[k].setAttribute("aria-label", say(`net.${name}.is`));
      });
      const sizes = [...BATCHES.map((size) => [String(size), size === ROWS ? say("net.all", { rows: ROWS }) : String(size)]), [BATCHES.join(","), say("net.several", { rule: state.look })]];
      batch.replaceChildren(...sizes.map(([value, text]) => make("option", { value, textContent: text })));
      batch.value = state["net.batch"].join(",");
      const rates = [["best", say("net.best", { count: NET_RATES.length })], ...NET_RATES.map((lr) => [String(lr), say("net.same", { lr: short(lr) })])];
      rate.replaceChildren(...rates.map(([value, text]) => make("option", { value, textContent: text })));
      rate.value = String(state["net.lr"]);
    }

    // What the trainings depend on is looked at whenever anything has changed, also while something else is dragged.
    let spoken = "";
    function changed() {
      const { state } = page;
      const words = JSON.stringify([state.lang, state.look, state["net.batch"], state["net.lr"]]);
      if (words !== spoken) speak();
      const several = state["net.batch"].length > 1;
      const key = JSON.stringify([isAsking(), several && state.look, ["net.batch", "net.lr", "net.seed"].map((name) => state[name]), page.walkers.map(({ id, numbers, flags }) => [id, { ...numbers, lr: 0 }, flags]), state.own]);
      if (key !== made) restart();
      else if (words !== spoken && visible) draw();
      [made, spoken] = [key, words];
      if (!several) {
        const looked = runs.findIndex((run) => run.rule === state.look);
        if (looked >= 0 && looked !== chosen) choose(looked);
      }
    }
    const moonsShown = moons();
    return { changed };
  },
});
