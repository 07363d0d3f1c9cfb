// The numbers of every rule: of the whole walk, and at the step shown.

// A row for each walker, whose head shows or hides it; `told` says what is in words, and is told what is done.
function buildTable(body, walkers, surface, told) {
  body.replaceChildren();
  for (const walker of walkers) {
    const row = body.insertRow();
    const head = document.createElement("th");
    head.scope = "row";
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", String(walker.shown));
    button.title = told.toggle;
    const key = document.createElement("canvas");
    key.className = "key";
    const name = document.createElement("span"); // broken where its parts end, if it must be
    name.append(...walker.name.split(/(?<=[_.(])/).flatMap((part) => [part, document.createElement("wbr")]));
    button.append(key, name);
    button.addEventListener("click", () => told.toggled(walker));
    head.append(button);
    row.append(head);
    const cell = (kind) => Object.assign(row.insertCell(), { className: kind });
    const states = walker.code.start(new Float64Array(surface.variables.length), walker.numbers);
    walker.cells = {
      button,
      loss: cell("number first"),
      limit: gauge(cell("number")),
      effective: surface.variables.map(() => cell("number")),
      memory: memoryCells(cell("number memory"), states),
      rate: cell("number first"),
      arrived: cell("number arrived"),
      roundabout: cell("number"),
      turns: cell("number"),
    };
    walker.row = row;
    walker.key = key;
    for (const [event, pointed] of [["pointerenter", walker], ["pointerleave", null], ["focusin", walker], ["focusout", null]]) {
      row.addEventListener(event, () => told.pointed(pointed));
    }
    showShown(walker);
  }
}

function showShown({ row, cells, shown }) {
  cells.button.setAttribute("aria-pressed", String(shown));
  row.classList.toggle("hidden", !shown);
}

// How the way of a walker is drawn, for all of them.
function drawKeys(walkers) {
  for (const walker of walkers) drawKey(walker.key, walker);
}

function drawKey(canvas, walker) {
  const { context, width, height } = fitted(canvas);
  context.strokeStyle = colour(walker.colour);
  context.lineWidth = 2;
  context.setLineDash(walker.dash);
  straight(context, 0, height / 2, width, height / 2);
  context.setLineDash([]);
  marker(context, walker.shape, width / 2, height / 2, colour(walker.colour), colour("page"), 1);
}

// A number beside its limit, and a bar whose mark is the limit.
function gauge(cell) {
  const text = document.createElement("span");
  const bar = document.createElement("span");
  const fill = document.createElement("span");
  bar.className = "bar";
  bar.append(fill);
  cell.append(text, bar);
  return { cell, text, fill };
}

// Places for the values of every state.
function memoryCells(cell, states) {
  return Object.entries(states).flatMap(([name, values]) => {
    const state = document.createElement("span");
    state.className = "state";
    const label = document.createElement("i");
    label.textContent = name;
    const places = Array.from(values, () => document.createElement("span"));
    state.append(label, ...places);
    cell.append(state);
    return places;
  });
}

// What is said of the whole walk.
function fillTable({ walkers, steps }) {
  const soonest = Math.min(...walkers.map((walker) => walker.arrived));
  for (const { cells, row, ...walker } of walkers) {
    const arrived = walker.arrived <= steps;
    row.classList.toggle("best", arrived && walker.arrived === soonest);
    cells.rate.textContent = short(walker.lr);
    cells.arrived.textContent = arrived ? String(walker.arrived) : "–";
    cells.roundabout.textContent = Number.isFinite(walker.length) ? short(walker.length / walker.distance) : "∞";
    cells.turns.textContent = String(walker.turns);
  }
}

// What is so at the step shown.
function fillNow({ walkers, step, steps }, told) {
  for (const { cells, limit, ...walker } of walkers) {
    cells.loss.textContent = short(walker.losses[step]);
    const sharpness = walker.sharpness(step);
    const beyond = limit && sharpness >= limit.limit;
    if (limit) cells.limit.text.textContent = `${short(sharpness)} ${Number.isNaN(sharpness) ? "/" : beyond ? ">" : "<"} ${short(limit.limit)}${limit.held ? "*" : ""}`;
    else cells.limit.text.textContent = told.limitless;
    cells.limit.cell.className = `number ${limit ? "" : "limitless"} ${beyond ? "beyond" : ""}`;
    cells.limit.fill.style.width = `${80 * Math.max(0, Math.min(1.25, sharpness / limit?.limit || 0))}%`;
    walker.effective(Math.min(step, steps - 1)).forEach((value, i) => (cells.effective[i].textContent = short(value)));
    cells.memory.forEach((cell, k) => (cell.textContent = short(walker.memory[step * walker.width + k])));
  }
}
