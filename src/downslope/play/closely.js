// One rule, looked at closely: its picture, its sentence, and its formula with the numbers of the step shown.

let axis = 0; // the weight whose numbers are put in

const lookedAt = () => walkers.find((walker) => walker.id === state.look) ?? walkers[0];

// The number of every input and line in the step from the place shown, for one weight.
function numbersOf(walker, moment, i) {
  const known = { ...moment.numbers, t: moment.t + 1, dx: moment.slope[i], x: moment.x[i] };
  for (const [name, values] of Object.entries(moment.states)) known[name] = values[i % values.length];
  const lines = [];
  for (const { name, inputs, value } of linesOf(walker.form)) {
    const found = value(...inputs.map((input) => (typeof input === "number" ? lines[input] : known[input])));
    lines.push(Number(found));
    if (name === "ahead") known.ahead = found;
  }
  return { known, lines };
}

// The frame of the formula, made anew for another rule or language; and the numbers in it, for another step.
let writtenFor = [];
function showFormula() {
  const walker = lookedAt();
  const key = [walker.form, state.lang, surface.variables.length, axis];
  const moment = momentOf(walker, Math.min(now.step, state.steps - 1));
  const { known, lines } = numbersOf(walker, moment, axis);
  const reading = linesOf(walker.form);
  const before = new Set(["x", ...walker.places.map((place) => place.name)]);
  const name = (input, line) => {
    const called = line < 0 ? input : reading[line].name;
    const time = line < 0 ? (before.has(input) ? "t-1" : input === "dx" ? "t" : "") : reading[line].time ? "t" : "";
    return pointed(symbol(called, time, line >= 0 && reading[line].time === 2), called);
  };
  const numbers = (input, line) => numberPart(line < 0 ? known[input] : lines[line]);
  if (key.some((value, k) => value !== writtenFor[k])) {
    writtenFor = key;
    find("formula").replaceChildren(
      ...reading.map((line, k) => {
        const left = line.name === "ahead" ? pointed(symbol("dx", "t"), "dx") : pointed(symbol(line.name, line.time ? "t" : "", line.time === 2), line.name);
        const right = partOf(line.tree, (input, at) => part(name(input, at))).node;
        const asked = line.name === "ahead" ? row(mo("∇"), math("mi", "L"), mo("("), right, mo(")")) : right;
        line.cell = make("div", { className: "put-in" });
        return make("div", { className: "line" }, wrapped(left, mo("="), asked), line.cell);
      }),
    );
    buildRoles(walker);
  }
  reading.forEach((line, k) => {
    const put = partOf(line.tree, numbers).node;
    const ahead = line.name === "ahead";
    const result = math("mn", short(ahead ? known.dx : lines[k]));
    result.setAttribute("class", "result");
    const shown = ahead ? row(mo("∇"), math("mi", "L"), mo("("), put, mo(")")) : put;
    line.cell.replaceChildren(wrapped(mo("="), shown, mo("="), result));
  });
  fillRoles(walker, moment);
}

function wrapped(...inside) {
  const made = math("math", row(...inside));
  made.setAttribute("displaystyle", "true");
  return made;
}

// A symbol that lights what it stands for when it is pointed at.
function pointed(node, name) {
  node.setAttribute("class", "points");
  node.dataset.of = name;
  return node;
}

// What the picture is made of, as buttons: each lights its part, with the symbols that stand for it.
const ROLES = ["slope", "inertia", "shoes", "step"];
let rolesSay = {};
function buildRoles(walker) {
  rolesSay = {};
  find("roles").replaceChildren(
    ...ROLES.map((role) => {
      const says = make("span", { className: "number" });
      rolesSay[role] = says;
      const button = make("button", { type: "button", onclick: () => light(now.lit === role ? "" : role) }, make("b", { textContent: say(`role.${role}`) }), " ", says, make("small", { textContent: say(`role.${role}.is`) }));
      button.dataset.role = role;
      return make("li", {}, button);
    }),
  );
}

function fillRoles(walker, moment) {
  const vector = (values) => (values.length > 1 ? `(${Array.from(values, short).join(", ")})` : short(values[0]));
  const told = { slope: moment.slope, inertia: moment.inertia, shoes: moment.shoes, step: moment.step };
  for (const role of ROLES) rolesSay[role].textContent = vector(told[role]);
  for (const button of find("roles").querySelectorAll("button")) button.setAttribute("aria-pressed", String(now.lit === button.dataset.role));
  for (const each of find("formula").querySelectorAll(".points")) each.classList.toggle("lit", Boolean(now.lit) && roleOf(walker, each.dataset.of) === now.lit);
}

function light(role) {
  if (now.lit === role) return;
  now.lit = role;
  ask();
}

// Which rule is looked at, and its words.
let closelyFor = [];
function showClosely() {
  axis = Math.min(axis, surface.variables.length - 1);
  const walker = lookedAt();
  const key = [state.lang, walker, surface.variables.length, axis, ...walkers];
  if (key.length === closelyFor.length && key.every((value, k) => value === closelyFor[k])) return;
  closelyFor = key;
  find("look").replaceChildren(
    ...walkers.map((each) => {
      const button = make("button", { type: "button", textContent: each.name, onclick: () => change({ look: each.id }) });
      button.setAttribute("aria-pressed", String(each === walker));
      return button;
    }),
  );
  const spoken = [`rule.${ruleOf(walker.id)}`, `rule.${walker.rule.family}`].find(isSaid);
  find("sentence").textContent = spoken ? say(spoken) : "";
  find("axes").hidden = !surface.flat;
  find("axes").replaceChildren(
    ...surface.variables.map((name, i) => {
      const button = make("button", { type: "button", textContent: name, onclick: () => ((axis = i), showClosely(), ask()) });
      button.setAttribute("aria-pressed", String(i === axis));
      return button;
    }),
  );
}

function listenClosely() {
  const formula = find("formula");
  formula.addEventListener("pointerover", (event) => {
    const name = event.target.closest?.(".points")?.dataset.of;
    light(name ? roleOf(lookedAt(), name) : "");
  });
  formula.addEventListener("pointerleave", () => light(""));
  for (const role of ROLES) {
    find("roles").addEventListener("pointerover", (event) => event.target.closest?.("button")?.dataset.role === role && light(role));
  }
  find("roles").addEventListener("pointerleave", () => light(""));
}
