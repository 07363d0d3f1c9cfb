// To take away: the link, the same walk in Python, a picture, the numbers.

const literal = (value) => {
  if (typeof value === "boolean") return value ? "True" : "False";
  const text = String(value);
  return /^-?\d+$/.test(text) ? `${text}.0` : text.replace("e+", "e");
};

// The call of `downslope.walk` that walks the same.
function python() {
  const changes = Object.entries({ turn: surface.flat ? state.turn : 0, stretch: state.stretch, times: state.times }).filter(([key, value]) => value !== KEYS[key].fallback());
  const shape = Object.entries(state.shape);
  const call = (name, pairs) => (pairs.length ? `.${name}(${pairs.map(([key, value]) => `${key}=${literal(value)}`).join(", ")})` : "");
  const altered = call("given", shape) + call("changed", changes);
  const seen = isTyped() && state.window.some((end) => Math.abs(end) !== 5);
  const ranges = surface.variables.map((name, i) => `"${name}": (${literal(state.window[2 * i])}, ${literal(state.window[2 * i + 1])})`);
  const read = () => `downslope.read_surface(${JSON.stringify(state.surface)}${seen ? `, ranges={${ranges.join(", ")}}` : ""})`;
  const place = altered || seen ? `${isTyped() ? read() : `downslope.surfaces.${state.surface}`}${altered}` : JSON.stringify(state.surface);
  const rules = walkers.map(({ rule, numbers, flags }) => {
    const given = Object.entries(numbers).filter(([name, value]) => (name === "lr" ? state.lr === "own" : value !== rule.numbers[name] || rule.demanded?.includes(name)));
    given.push(...Object.entries(flags).filter(([name, value]) => value !== rule.flags[name] && (name !== "decoupled" || numbers.weight_decay)));
    const called = rule.python ?? "my_rule";
    return given.length ? `downslope.Recipe(${[called, ...given.map(([name, value]) => `${name}=${literal(value)}`)].join(", ")})` : called;
  });
  const start = state.start.map(literal).join(", ") + (state.start.length === 1 ? "," : "");
  const rest = [`start=(${start})`, `steps=${state.steps}`, `lr=${typeof state.lr === "number" ? literal(state.lr) : JSON.stringify(state.lr)}`];
  if (state.noise > 0) rest.push(`noise=${literal(state.noise)}`, `seed=${state.seed}`);
  return `downslope.walk(${[place, `[${rules.join(", ")}]`, ...rest].join(", ")})`;
}

// All steps of all rules, as `Walk.write("walk.csv")` has them.
function csv() {
  const { variables } = surface;
  const size = variables.length;
  const states = [...new Set(walkers.flatMap(({ places }) => places.filter(({ length }) => length === size).flatMap(({ name }) => variables.map((v) => `${name}_${v}`))))];
  const lines = [["rule", "lr", "step", ...variables, "loss", ...variables.map((v) => `d${v}`), ...states]];
  for (const walker of walkers) {
    for (let t = 0; t <= state.steps; t++) {
      const known = {};
      for (const { name, length, place } of walker.places) if (length === size) variables.forEach((v, i) => (known[`${name}_${v}`] = walker.memory[t * walker.width + place + i]));
      const slope = t ? momentOf(walker, t - 1).slope : variables.map(() => "");
      const name = /[",]/.test(walker.name) ? `"${walker.name.replaceAll('"', '""')}"` : walker.name;
      lines.push([name, Number.isNaN(walker.lr) ? "" : walker.lr, t, ...walker.points.subarray(t * size, (t + 1) * size), walker.losses[t], ...slope, ...states.map((each) => known[each] ?? "")]);
    }
  }
  return lines.map((line) => `${line.join(",")}\n`).join("");
}

// A canvas that writes down what is drawn on it, as the elements of an SVG.
class Recorder {
  constructor(width, height) {
    Object.assign(this, { width, height, elements: [], path: "", dash: [], globalAlpha: 1, lineWidth: 1, font: "11px sans-serif", textAlign: "left", lineJoin: "miter", lineCap: "butt", strokeStyle: "#000", fillStyle: "#000" });
  }
  put(tag, attributes, text = "") {
    const known = Object.entries({ ...attributes, ...(this.globalAlpha < 1 ? { opacity: this.globalAlpha } : {}) });
    const safe = (value) => String(typeof value === "number" ? Number(value.toFixed(2)) : value).replace(/[&<>"]/g, (letter) => `&#${letter.charCodeAt(0)};`);
    this.elements.push(`<${tag} ${known.map(([name, value]) => `${name}="${safe(value)}"`).join(" ")}>${safe(text)}</${tag}>`);
  }
  get pen() {
    return { fill: "none", stroke: this.strokeStyle, "stroke-width": this.lineWidth, "stroke-linejoin": this.lineJoin, "stroke-linecap": this.lineCap, ...(this.dash.length ? { "stroke-dasharray": this.dash.join(" ") } : {}) };
  }
  to(letter, ...places) { this.path += letter + places.map((value) => Number(value.toFixed(2))).join(" "); }
  setLineDash(dash) { this.dash = dash; }
  beginPath() { this.path = ""; }
  moveTo(x, y) { this.to("M", x, y); }
  lineTo(x, y) { this.to(this.path ? "L" : "M", x, y); }
  closePath() { this.path += "Z"; }
  arc(x, y, r) {
    this.to("M", x - r, y);
    this.to("a", r, r, 0, 1, 0, 2 * r, 0);
    this.to("a", r, r, 0, 1, 0, -2 * r, 0);
  }
  stroke() { this.put("path", { d: this.path, ...this.pen }); }
  fill() { this.put("path", { d: this.path, fill: this.fillStyle }); }
  strokeRect(x, y, w, h) { this.put("path", { d: `M${x} ${y}l${w} ${h}`, ...this.pen }); } // lines across and down are drawn so
  fillRect(x, y, width, height) { this.put("rect", { x, y, width, height, fill: this.fillStyle }); }
  fillText(text, x, y) {
    this.put("text", { x, y, fill: this.fillStyle, "font-size": parseFloat(this.font), "font-family": "system-ui, sans-serif", "text-anchor": { left: "start", center: "middle", right: "end" }[this.textAlign] }, text);
  }
  drawImage(image, x, y, width, height) {
    const copy = make("canvas", { width: image.width, height: image.height });
    copy.getContext("2d").drawImage(image, 0, 0);
    this.put("image", { href: copy.toDataURL(), x, y, width, height });
  }
  get text() {
    return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${this.width} ${this.height}" width="${this.width}" height="${this.height}">${this.elements.join("")}</svg>`;
  }
}

const LEGEND = 24; // pixels for each line of it

// The picture to take away: the walk at the step shown, and below it who is who.
function paintPicture(room, scene) {
  const { context, width, height } = room;
  const { step, steps, land } = scene;
  const shown = scene.walkers.filter((walker) => walker.shown);
  context.fillStyle = colour("page");
  context.fillRect(0, 0, width, height + LEGEND * (shown.length + 1));
  if (land) context.drawImage(land, 0, 0);
  else paintLand(room, scene.surface);
  paintWays(room, scene);
  context.textAlign = "left";
  context.font = "13px system-ui, sans-serif";
  shown.forEach((walker, k) => {
    const y = height + LEGEND * (k + 0.75);
    context.strokeStyle = colour(walker.colour);
    context.lineWidth = 2;
    context.setLineDash(walker.dash);
    straight(context, 10, y, 54, y);
    context.setLineDash([]);
    marker(context, walker.shape, 32, y, colour(walker.colour), colour("page"), 1);
    context.fillStyle = colour("ink");
    const loss = say("told.walker", { name: walker.name, loss: short(walker.losses[step]) });
    context.fillText(`${loss}, lr ${short(walker.lr)}`, 66, y + 4.5);
  });
  context.fillStyle = colour("muted");
  context.font = "11px system-ui, sans-serif";
  context.fillText(`${surfaceCalled(scene.surface.name)}, ${say("step.of", { step, steps })} · downslope play`, 10, height + LEGEND * (shown.length + 0.65));
}

function pictureSize() {
  const { width, height } = sizes.get(ground);
  return [Math.round(width), Math.round(height), Math.round(height + LEGEND * (walkers.filter((walker) => walker.shown).length + 1))];
}

function svg() {
  const [width, height, all] = pictureSize();
  const recorder = new Recorder(width, all);
  paintPicture({ context: recorder, width, height, ratio: 2 }, scene());
  return recorder.text;
}

function png(done) {
  const [width, height, all] = pictureSize();
  const canvas = make("canvas", { width: 2 * width, height: 2 * all });
  const context = canvas.getContext("2d");
  context.scale(2, 2);
  paintPicture({ context, width, height, ratio: 2 }, scene());
  canvas.toBlob(done);
}

function saveAs(name, blob) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

async function copyText(button, text) {
  let copied = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", { value: text });
    button.after(area);
    area.select();
    copied = document.execCommand("copy");
    area.remove();
    button.focus();
  }
  find("said").textContent = say(copied ? "copied" : "copied.not");
  button.textContent = say(copied ? "copied" : "copied.not");
  setTimeout(() => (button.textContent = say(button.dataset.say)), 1500);
}

function showShare() {
  find("python").textContent = python();
}

function listenToShare() {
  find("copy-link").addEventListener("click", (event) => copyText(event.currentTarget, location.href.split("#")[0] + writeLink()));
  find("copy-python").addEventListener("click", (event) => copyText(event.currentTarget, find("python").textContent));
  find("save-png").addEventListener("click", () => png((blob) => saveAs("walk.png", blob)));
  find("save-svg").addEventListener("click", () => saveAs("walk.svg", new Blob([svg()], { type: "image/svg+xml" })));
  find("save-gif").addEventListener("click", (event) => film(event.currentTarget));
  find("save-csv").addEventListener("click", () => saveAs("walk.csv", new Blob([csv()], { type: "text/csv" })));
}
