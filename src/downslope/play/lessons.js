// Lessons: a question, a guess, and the answer as the page itself gives it. A lesson is a link, so that anyone can make
// another one; what is said in an answer is worked out from the walkers, or is held by a test to what they do.

const stepsOf = ({ arrived }) => (arrived <= state.steps ? String(arrived) : say("lesson.never"));
const roundabout = ({ length, distance }) => short(length / distance);
const placeOf = ({ points }, t, axis = 0) => points[t * surface.variables.length + axis];
const stride = (walker, axis = 0) => Math.abs(placeOf(walker, 1, axis) - placeOf(walker, 0, axis));
const longest = ({ points }) => Math.max(...Array.from({ length: state.steps }, (_, t) => Math.abs(points[t + 1] - points[t]))); // of a path of one weight
const firstSlopes = () => [...surface.height(Float64Array.from(state.start), new Float64Array(3))].slice(1).map(Math.abs);
const farthest = (walker, from) => Math.max(...Array.from({ length: state.steps - from + 1 }, (_, k) => Math.abs(placeOf(walker, from + k))));

// After how many steps a walker is at the goal on another surface, from another start; or here at its best learning rate.
function elsewhere(walker, name, start, lr = walker.lr) {
  const there = name ? { ...SURFACES[name], height: SURFACES[name].height(SURFACES[name].parameters) } : surface;
  const first = there.height(Float64Array.from(start), new Float64Array(3))[0];
  const room = roomFor(walker.code, walker.numbers, start.length, state.steps, false);
  const { losses } = walked(walker.code, { ...walker.numbers, lr }, there, start, null, room);
  return arrival(losses, there.lowest + PLAY.close * (first - there.lowest), false);
}
const bestRateOf = (walker) => bestRate(walker.code, walker.numbers, surface, state.start, state.steps, null, PLAY.rates, goal);

// `link` is the state in which the page answers, `right` the place of the right choice, `facts` what is put into the answer
// once `isReady`, and `holds` what it claims, as a test asks of the walkers.
const LESSONS = {
  zigzag: {
    link: "surface=valley&rules=sgd,momentum&lr=0.15",
    right: 1,
    facts: ({ sgd, momentum }) => ({
      sgd: roundabout(sgd), momentum: roundabout(momentum), sgdTurns: sgd.turns, momentumTurns: momentum.turns,
      sgdSteps: stepsOf(sgd), momentumSteps: stepsOf(momentum),
    }),
    holds: ({ sgd, momentum }) => momentum.length > 2 * sgd.length && momentum.turns < sgd.turns && momentum.arrived < sgd.arrived,
  },
  tuned: {
    link: "surface=valley&rules=sgd,momentum,momentum.2&lr=best&momentum.2.mu=0.57",
    right: 1,
    facts: ({ sgd, momentum, "momentum.2": other }) => ({
      sgd: stepsOf(sgd), momentum: stepsOf(momentum), ratio: short(sgd.arrived / momentum.arrived), other: stepsOf(other),
      sgdRate: short(sgd.lr), momentumRate: short(momentum.lr),
    }),
    holds: ({ sgd, momentum, "momentum.2": other }) => sgd.arrived > 1.3 * momentum.arrived && sgd.arrived < 3 * momentum.arrived && other.arrived * 2 < momentum.arrived,
  },
  limits: {
    link: "surface=valley&rules=sgd,momentum,nesterov&lr=0.16",
    right: 2,
    facts: (by) => Object.fromEntries(["sgd", "momentum", "nesterov"].map((name) => [name, short(limitingRate(by[name]))])),
    holds: ({ sgd, momentum, nesterov }) =>
      limitingRate(nesterov) < 0.16 && limitingRate(sgd) > 0.16 && limitingRate(momentum) > limitingRate(sgd) &&
      nesterov.losses[state.steps] > nesterov.losses[0] && Math.max(sgd.arrived, momentum.arrived) < state.steps,
  },
  cycle: {
    link: `surface=heavy_ball_cycle&rules=momentum,nesterov&lr=own&momentum.lr=${1 / 9}&momentum.mu=${4 / 9}&nesterov.lr=0.04&nesterov.mu=${2 / 3}`,
    right: 1,
    facts: ({ momentum, nesterov }) => ({
      places: [2, 1, 0].map((k) => short(placeOf(momentum, state.steps - k))).join(", "), nesterov: stepsOf(nesterov), rate: short(nesterov.lr),
    }),
    holds: ({ momentum, nesterov }) =>
      [0, 1, 2].every((k) => Math.abs(placeOf(momentum, state.steps - k) - placeOf(momentum, state.steps - k - 3)) < 1e-6) &&
      Math.abs(placeOf(momentum, state.steps) - placeOf(momentum, state.steps - 1)) > 1 && nesterov.arrived < 30,
  },
  hill: {
    link: "surface=double_well&rules=sgd,momentum,adam&lr=0.05",
    right: 1,
    facts: (by) => Object.fromEntries(["sgd", "momentum", "adam"].map((name) => [name, short(placeOf(by[name], state.steps))])),
    holds: ({ sgd, momentum, adam }) => placeOf(momentum, state.steps) < 0 && placeOf(sgd, state.steps) > 0.9 && placeOf(adam, state.steps) > 0.9 && longest(adam) < 1.2 * adam.lr,
  },
  saddle: {
    link: "surface=saddle&rules=sgd,momentum,rmsprop&lr=0.02",
    right: 2,
    facts: ({ sgd, momentum, rmsprop }) => ({
      along: short(firstSlopes()[0]), across: short(firstSlopes()[1]), sgd: short(stride(sgd, 1)), rmsprop: short(stride(rmsprop, 1)), rmspropAlong: short(stride(rmsprop)),
      sgdSteps: stepsOf(sgd), momentumSteps: stepsOf(momentum), rmspropSteps: stepsOf(rmsprop),
    }),
    holds: ({ sgd, momentum, rmsprop }) => rmsprop.arrived < momentum.arrived && momentum.arrived < sgd.arrived && stride(rmsprop, 1) > 500 * stride(sgd, 1),
  },
  adagrad: {
    link: "surface=valley&rules=adagrad,rmsprop&lr=0.1",
    right: 1,
    facts: ({ adagrad, rmsprop }) => {
      const [first, last] = [0, state.steps - 1].map((t) => short(adagrad.effective(t)[0]));
      const best = bestRateOf(adagrad);
      return { x: short(placeOf(adagrad, state.steps)), first, last, rmsprop: stepsOf(rmsprop), best: short(best), soon: elsewhere(adagrad, "", state.start, best) };
    },
    holds: ({ adagrad, rmsprop }) => {
      const sizes = Array.from({ length: state.steps }, (_, t) => adagrad.effective(t)[0]);
      return placeOf(adagrad, state.steps) < -4 && sizes.every((size, t) => !t || size < sizes[t - 1]) && rmsprop.arrived < 100 && elsewhere(adagrad, "", state.start, bestRateOf(adagrad)) < 50;
    },
  },
  rmsprop: {
    link: "surface=kink&rules=adagrad,rmsprop&lr=0.3",
    right: 0,
    facts: ({ adagrad, rmsprop }) => ({ adagrad: short(farthest(adagrad, state.steps - 20)), rmsprop: short(farthest(rmsprop, state.steps - 20)) }),
    holds: ({ adagrad, rmsprop }) => farthest(adagrad, state.steps - 20) < 0.05 && farthest(rmsprop, state.steps - 20) > 0.29,
  },
  first: {
    link: "surface=valley&rules=sgd,adam&lr=0.1",
    right: 1,
    facts: ({ sgd, adam }) => ({
      ratio: short(firstSlopes()[1] / firstSlopes()[0]), x: short(firstSlopes()[0]), y: short(firstSlopes()[1]),
      sgdX: short(stride(sgd)), sgdY: short(stride(sgd, 1)), adamX: short(stride(adam)), adamY: short(stride(adam, 1)),
    }),
    holds: ({ sgd, adam }) => Math.abs(stride(adam) - stride(adam, 1)) < 1e-6 && Math.abs(stride(adam) - adam.lr) < 1e-6 && stride(sgd, 1) > 8 * stride(sgd),
  },
  correction: {
    link: "surface=bowl&rules=adam,adam.2&lr=0.1&adam.2.bias_correction=0",
    right: 2,
    facts: ({ adam, "adam.2": plain }) => ({
      adam: short(stride(adam)), plain: short(stride(plain)), ratio: short(stride(plain) / stride(adam)),
      adamBeyond: short(Math.max(...adam.points)), plainBeyond: short(Math.max(...plain.points)),
    }),
    holds: ({ adam, "adam.2": plain }) => Math.abs(stride(plain) / stride(adam) - 0.1 / Math.sqrt(0.001)) < 1e-4 && Math.max(...plain.points) > Math.max(...adam.points),
  },
  eps: {
    link: "surface=valley&rules=adam,adam.2&lr=0.1&adam.2.eps=100",
    right: 1,
    facts: ({ adam, "adam.2": large }) => ({
      adamX: short(stride(adam)), adamY: short(stride(adam, 1)), largeX: short(stride(large)), largeY: short(stride(large, 1)),
      ratio: short(firstSlopes()[1] / firstSlopes()[0]), adam: stepsOf(adam), large: stepsOf(large),
    }),
    holds: ({ adam, "adam.2": large }) => large.arrived > state.steps && adam.arrived < state.steps && stride(large, 1) > 7 * stride(large) && stride(large, 1) < stride(adam) / 5,
  },
  dialects: {
    link: "surface=bowl&rules=torch.rmsprop,keras.rmsprop&lr=own",
    right: 2,
    facts: ({ "torch.rmsprop": torch, "keras.rmsprop": keras }) => ({
      torchRate: short(torch.lr), torch: short(stride(torch)), torchTimes: short(stride(torch) / torch.lr),
      kerasRate: short(keras.lr), keras: short(stride(keras)), kerasTimes: short(stride(keras) / keras.lr), ratio: short(stride(torch) / stride(keras)),
    }),
    holds: ({ "torch.rmsprop": torch, "keras.rmsprop": keras }) => Math.abs(stride(torch) / stride(keras) - 31.6) < 0.1,
  },
  turned: {
    link: "surface=rotated_valley&rules=sgd,adam,rmsprop&lr=0.1&steps=400",
    right: 2,
    facts: (by) => {
      const [x, y] = state.start.map((value) => value / Math.SQRT2);
      return Object.fromEntries(["sgd", "adam", "rmsprop"].flatMap((name) => [[name, stepsOf(by[name])], [`${name}Before`, elsewhere(by[name], "valley", [x + y, y - x])]]));
    },
    holds: ({ sgd, adam, rmsprop }) => {
      const [x, y] = state.start.map((value) => value / Math.SQRT2);
      const before = (walker) => elsewhere(walker, "valley", [x + y, y - x]);
      return before(sgd) === sgd.arrived && adam.arrived > 1.5 * before(adam) && rmsprop.arrived > 3 * before(rmsprop);
    },
  },
  worth: {
    link: "surface=rosenbrock&rules=sgd,nesterov,adam,rmsprop&lr=best",
    right: 0,
    facts: (by) => Object.fromEntries(["sgd", "nesterov", "adam", "rmsprop"].map((name) => [name, stepsOf(by[name])])),
    holds: ({ sgd, nesterov, adam, rmsprop }) => nesterov.arrived < adam.arrived && adam.arrived < Math.min(sgd.arrived, rmsprop.arrived),
  },
};
LESSONS.batches = {
  link: `rules=sgd&net.batch=${BATCHES}&net.lr=best`,
  hide: "stage,surface,rates,steps,add,weather,closely,settings,numbers,own-rule,share",
  isReady: isTrained,
  right: 1,
  facts: () => Object.fromEntries(runs.map((run) => [`of${run.size}`, goalAfter(run.training)])),
  holds: () => {
    const [one, ten, fifty, all] = runs.map((run) => goalAfter(run.training));
    return one > 0 && one <= ten && ten < fifty && fifty < all && 5 * ten <= all;
  },
};
const CHOICES = 3;
const FREE = ["v", "t", "speed", "off", "look", "lang", "hide", "lesson", "guess"]; // what of the state an answer does not depend on

KEYS.lesson = { fallback: () => "", ...oneOf(() => ["", ...Object.keys(LESSONS)]) };
KEYS.guess = { fallback: () => "", ...oneOf(() => ["", ...Array.from({ length: CHOICES }, (_, k) => String(k))]) };

// The link of a lesson's state, before what a link to the lesson says besides: without a guess nobody walks yet. A link that says
// its surface says all.
function lessonLink(link) {
  const given = new URLSearchParams(link);
  if (!has(LESSONS, given.get("lesson") ?? "") || given.has("surface")) return link;
  const { link: own, hide = "own-rule,network" } = LESSONS[given.get("lesson")];
  const asking = given.get("guess") ? "" : `&off=${new URLSearchParams(own).get("rules")}`;
  return `${own}${asking}&hide=${hide}&${link}`;
}

// Whether the state is the one in which a lesson answers.
function isAsMade({ link }) {
  const wanted = link.split("&");
  const found = writeLink().slice(1).split("&").filter((part) => !FREE.includes(part.split("=")[0]));
  const usual = (part) => KEYS[part.split("=")[0]]?.write(KEYS[part.split("=")[0]].fallback(state)) === part.split("=")[1];
  return found.every((part) => wanted.includes(part) || usual(part)) && wanted.every((part) => found.includes(part) || usual(part));
}

const byId = () => Object.fromEntries(walkers.map((walker) => [walker.id, walker]));

MODULES.push({
  place: "lessons",
  mount(page, element) {
    const names = Object.keys(LESSONS);
    let built = "";
    const linkTo = (id, text) => make("a", { href: `#${id ? `lesson=${id}&` : ""}lang=${page.state.lang}`, textContent: text });

    function guessed(id, k) {
      page.openLink(`lesson=${id}&guess=${k}&lang=${page.state.lang}`);
      page.change({});
      element.querySelectorAll("button")[k].focus();
      if (matchMedia("(prefers-reduced-motion: reduce)").matches) page.show(page.state.steps);
      else page.play();
    }

    function list() {
      const all = make("ol", {}, ...names.map((id) => make("li", {}, linkTo(id, say(`lesson.${id}.title`)))));
      element.replaceChildren(make("details", {}, make("summary", { textContent: say("lessons.title", { count: names.length }) }), all));
    }

    function choice(id, k) {
      const { guess } = page.state;
      const [right, chosen] = [k === LESSONS[id].right, guess === String(k)];
      const button = make("button", { type: "button", onclick: () => guessed(id, k) }, say(`lesson.${id}.${k}`));
      button.setAttribute("aria-pressed", String(chosen));
      if (guess !== "" && (right || chosen)) {
        button.classList.add(right ? "right" : "wrong");
        button.prepend(make("span", { textContent: right ? "✓" : "✗" }), make("span", { className: "unseen", textContent: say(right ? "lessons.right" : "lessons.wrong") }));
      }
      return make("li", {}, button);
    }

    function question(id) {
      const at = names.indexOf(id);
      const next = names[at + 1];
      const about = make("p", { className: "small" }, `${say("lessons.number", { at: at + 1, count: names.length })} · `, linkTo("", say("lessons.leave")));
      const choices = Array.from({ length: CHOICES }, (_, k) => choice(id, k));
      element.replaceChildren(
        about,
        make("h2", { textContent: say(`lesson.${id}.title`) }),
        make("p", { className: "question", textContent: say(`lesson.${id}.question`) }),
        make("ul", { className: "choices" }, ...choices),
        make("p", { id: "answer", role: "status" }),
        ...(next ? [make("p", { className: "small" }, `${say("lessons.next")} `, linkTo(next, say(`lesson.${next}.title`)))] : []),
      );
    }

    // The answer, once the page has worked it out; it is not said of another state.
    function answer() {
      const { lesson, guess } = page.state;
      const field = element.querySelector("#answer");
      if (!field || guess === "") return;
      const right = Number(guess) === LESSONS[lesson].right;
      const waits = (page.state.lr === "best" && !isTried()) || LESSONS[lesson].isReady?.() === false;
      const text = isAsMade(LESSONS[lesson])
        ? waits ? "" : say("lessons.said", { verdict: say(right ? "lessons.right" : "lessons.wrong"), answer: say(`lesson.${lesson}.answer`, LESSONS[lesson].facts(byId())) })
        : say("lessons.changed");
      if (text !== field.textContent) field.textContent = text;
    }

    return {
      changed() {
        const { lesson, guess, lang } = page.state;
        if (built !== `${lesson} ${guess} ${lang}`) {
          document.body.classList.toggle("asking", isAsking());
          element.classList.toggle("open", lesson !== "");
          if (lesson) question(lesson);
          else list();
          built = `${lesson} ${guess} ${lang}`;
        }
        answer();
      },
      drawn: () => !element.querySelector("#answer")?.textContent && answer(),
    };
  },
});
