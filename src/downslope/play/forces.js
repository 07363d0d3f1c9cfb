// What moves a walker in the step to come: the slope, what he remembers, and how far his shoes let him go along each axis.
// His step is inertia, what it would be if it were level here, and what the slope adds.

// Everything that goes into the step from a place `t`.
function momentOf(walker, t) {
  const size = surface.variables.length;
  const x = walker.points.slice(t * size, (t + 1) * size);
  const states = {};
  for (const { name, length, place } of walker.places) states[name] = walker.memory.slice(t * walker.width + place, t * walker.width + place + length);
  const numbers = { ...walker.numbers, lr: walker.lr };
  const asked = Float64Array.from(x);
  if (walker.code.point) walker.code.point(asked, x, states, numbers);
  const slope = surface.height(asked, new Float64Array(1 + size)).slice(1);
  if (gusts && t < state.steps) for (let i = 0; i < size; i++) slope[i] += gusts[t * size + i];
  const stepped = (dx) => {
    const copy = Object.fromEntries(Object.entries(states).map(([name, values]) => [name, Float64Array.from(values)]));
    const to = Float64Array.from(x);
    walker.code.step(to, dx, copy, numbers, t + 1);
    return { step: to.map((value, i) => value - x[i]), states: copy };
  };
  const { step, states: after } = stepped(slope);
  const inertia = stepped(new Float64Array(size)).step;
  const shoes = Float64Array.from(walker.effective(Math.min(t, state.steps - 1)));
  return { t, x, states, after, numbers, asked, slope, step, inertia, pull: step.map((value, i) => value - inertia[i]), shoes };
}

function arrow(context, [x, y], [toX, toY], { width = 2, open = false } = {}) {
  const length = Math.hypot(toX - x, toY - y);
  if (!(length > 1.5)) return;
  const [u, v] = [(toX - x) / length, (toY - y) / length];
  const head = Math.min(4 + 2.5 * width, length * 0.6);
  for (const [colourOf, more] of [["page", 3], ["own", 0]]) {
    const own = context.ownColour;
    context.strokeStyle = context.fillStyle = colourOf === "page" ? colour("page") : own;
    context.lineWidth = width + more;
    context.lineCap = "round";
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(toX - (open ? 0 : u * head * 0.7), toY - (open ? 0 : v * head * 0.7));
    context.stroke();
    context.beginPath();
    context.moveTo(toX - u * head - v * head * 0.5, toY - v * head + u * head * 0.5);
    context.lineTo(toX, toY);
    context.lineTo(toX - u * head + v * head * 0.5, toY - v * head - u * head * 0.5);
    if (open) context.stroke();
    else {
      context.closePath();
      if (more) context.stroke();
      context.fill();
    }
  }
  context.lineCap = "butt";
}

// The colour and strength of a part of the drawing, of which one may be lit.
function lit(context, role) {
  const on = now.lit === role;
  context.ownColour = colour(on ? "accent" : "ink");
  context.globalAlpha = now.lit && !on ? 0.25 : 1;
  return on ? 3.6 : role === "slope" ? 1.5 : 2.4;
}

// The forces on a walker, on the map: directions and proportions are true, and all of it is enlarged so that it is seen.
function drawForces(context, walker, place) {
  const moment = momentOf(walker, Math.min(now.step, state.steps));
  const { x } = moment;
  const to = (offset) => place(x[0] + offset[0], surface.flat ? x[1] + offset[1] : walker.losses[now.step]);
  const here = to(new Float64Array(2));
  if (!here.every(Number.isFinite) || !moment.step.every(Number.isFinite)) return;
  const along = (offset) => to(offset).map((value, k) => value - here[k]);
  const vectors = { inertia: along(moment.inertia), step: along(moment.step), slope: along(moment.slope.map((value) => -value)) };
  const longest = Math.max(Math.hypot(...vectors.inertia), Math.hypot(...vectors.step));
  const scaled = (vector, size) => here.map((value, k) => value + vector[k] * size);
  const enlarged = longest > 0 ? Math.max(1, 64 / longest) : 1;
  drawShoes(context, here, moment.shoes);
  const steep = Math.hypot(...vectors.slope);
  const slopeWidth = lit(context, "slope");
  const asked = scaled(along(moment.asked.map((value, i) => value - x[i])), enlarged);
  const down = vectors.slope.map((value, k) => asked[k] + (steep > 0 ? (40 * value) / steep : 0));
  arrow(context, asked, down, { width: slopeWidth, open: true });
  if (moment.asked.some((value, i) => value !== x[i])) {
    context.fillStyle = colour("page");
    context.lineWidth = slopeWidth;
    context.beginPath();
    context.arc(...asked, 4, 0, 2 * Math.PI); // where a rule that looks ahead takes its gradient
    context.fill();
    context.stroke();
  }
  const tip = scaled(vectors.inertia, enlarged);
  arrow(context, here, tip, { width: lit(context, "inertia") });
  if (moment.inertia.some(Boolean) && now.lit === "slope") arrow(context, tip, scaled(vectors.step, enlarged), { width: 1.5 });
  context.setLineDash([2, 3]);
  arrow(context, here, scaled(vectors.step, enlarged), { width: lit(context, "step") * 0.7, open: true });
  context.setLineDash([]);
  context.globalAlpha = 1;
}

// The shoes: a cross whose arms are as long as a step goes along each axis per unit of slope, the longer one of one length.
function drawShoes(context, [x, y], shoes) {
  const largest = Math.max(...shoes.filter(Number.isFinite).map(Math.abs));
  if (!(largest > 0)) return;
  const width = lit(context, "shoes");
  const arms = Array.from(shoes, (value) => (Number.isFinite(value) ? 30 * Math.abs(value) / largest : 0));
  for (const [style, more] of [[colour("page"), 3], [context.ownColour, 0]]) {
    context.strokeStyle = style;
    context.lineWidth = width * 0.8 + more;
    context.beginPath();
    arms.forEach((arm, i) => {
      const [u, v] = i ? [0, 1] : [1, 0];
      context.moveTo(x - u * arm, y - v * arm);
      context.lineTo(x + u * arm, y + v * arm);
      for (const end of [-1, 1]) {
        context.moveTo(x + end * u * arm - v * 4, y + end * v * arm - u * 4);
        context.lineTo(x + end * u * arm + v * 4, y + end * v * arm + u * 4);
      }
    });
    context.stroke();
  }
  context.globalAlpha = 1;
}

// The picture: the man on the ground along which his step goes, as steep as it is there against the steepest place of his way.
function drawMan(canvas, walker) {
  const { context, width, height } = fitted(canvas);
  const moment = momentOf(walker, Math.min(now.step, state.steps));
  const { x, step, inertia, slope, shoes } = moment;
  const direction = Math.hypot(...step) > 0 ? step : slope.map((value) => -value);
  const size = Math.hypot(...direction);
  const right = direction[0] >= 0 ? 1 : -1; // he walks to the side to which he goes along x
  const unit = size > 0 ? direction.map((value) => value / size) : x.map((_, i) => Number(i === 0));
  const [middle, floor] = [width / 2, height * 0.72];
  const grade = slope.reduce((sum, value, i) => sum + value * unit[i], 0);
  const steepest = steepestOf(walker);
  const tilt = steepest > 0 ? Math.atan((0.8 * grade) / steepest) : 0;
  context.fillStyle = colour("low");
  context.strokeStyle = colour("muted");
  context.lineWidth = 2;
  context.beginPath();
  const rise = (px) => floor - (px - middle) * right * Math.tan(tilt);
  context.moveTo(0, rise(0));
  context.lineTo(width, rise(width));
  context.stroke();
  context.lineTo(width, height);
  context.lineTo(0, height);
  context.fill();
  if (![...step, ...inertia].every(Number.isFinite)) return;

  // His legs stand on his shoes, one for each axis; he leans with his inertia.
  const share = (vector) => vector.reduce((sum, value, i) => sum + value * unit[i], 0);
  const push = size > 0 ? Math.max(-1.4, Math.min(1.4, share(inertia) / size)) : 0;
  const lean = right * (0.1 + 0.22 * push);
  const hip = [middle + 8 * lean, floor - 52];
  const neck = [hip[0] + 46 * Math.sin(lean), hip[1] - 46 * Math.cos(lean)];
  const line = (...points) => {
    context.beginPath();
    points.forEach(([px, py]) => context.lineTo(px, py));
    context.stroke();
  };
  context.strokeStyle = colour(walker.colour);
  context.lineCap = context.lineJoin = "round";
  context.lineWidth = 5;
  const most = largestShoe(walker);
  const feet = [];
  Array.from({ length: 2 }, (_, i) => {
    const px = middle + right * (i ? 17 : -17);
    feet.push([px, rise(px)]);
    line(hip, [middle + right * (i ? 16 : -6), floor - 26], [px, rise(px) - 5]);
  });
  line(hip, neck);
  line([neck[0] - right * 20, neck[1] + 26], [neck[0], neck[1] + 8], [neck[0] + right * 22, neck[1] + 18]);
  context.beginPath();
  context.arc(neck[0] + 6 * Math.sin(lean), neck[1] - 13, 11, 0, 2 * Math.PI);
  context.fillStyle = colour("page");
  context.lineWidth = 4;
  context.fill();
  context.stroke();
  const shoeWidth = lit(context, "shoes");
  context.strokeStyle = context.fillStyle = context.ownColour;
  feet.forEach(([px, py], i) => {
    const value = Math.abs(shoes[Math.min(i, shoes.length - 1)]) / most;
    const length = value > 0 ? 8 + 26 * Math.max(0, 1 + Math.log10(value) / 3) : 4;
    context.lineWidth = 5 + shoeWidth;
    line([px - right * 4, py - 4], [px - right * 4 + right * length, py - 4 - right * length * right * Math.tan(tilt)]);
  });
  context.font = "11px system-ui, sans-serif";
  context.textAlign = "center";
  context.fillStyle = colour("ink");
  if (surface.flat) feet.forEach(([px, py], i) => context.fillText(surface.variables[i], px, py + 16));
  context.globalAlpha = 1;

  // Inertia pushes him from behind; the slope pulls at him along the ground.
  const long = (value) => (size > 0 ? Math.max(-1, Math.min(1, value / size)) * width * 0.3 : 0);
  const chest = [middle, floor - 74];
  const inertiaLong = right * long(share(inertia));
  const inertiaWidth = lit(context, "inertia");
  arrow(context, [chest[0] - inertiaLong - right * 14, chest[1]], [chest[0] - right * 14, chest[1]], { width: inertiaWidth + 1 });
  const pull = right * long(share(moment.pull));
  const pullWidth = lit(context, "slope");
  const from = [middle + Math.sign(pull || right) * 30, rise(middle + Math.sign(pull || right) * 30) - 22];
  arrow(context, from, [from[0] + pull, from[1] - pull * right * Math.tan(tilt)], { width: pullWidth + 0.6, open: true });
  context.globalAlpha = 1;
  context.lineCap = "butt";
}

// The steepest slope on a way, and the largest effective step, each looked for at some of its places.
function steepestOf(walker) {
  const size = surface.variables.length;
  const out = new Float64Array(1 + size);
  return overWay(walker, (t) => Math.hypot(...surface.height(walker.points.subarray(t * size, (t + 1) * size), out).subarray(1)));
}

const largestShoe = (walker) => overWay(walker, (t) => (t < state.steps ? Math.max(...Array.from(walker.effective(t), Math.abs).filter(Number.isFinite)) : 0)) || 1;

function overWay(walker, value) {
  const key = value.toString();
  if (!(key in walker.once)) {
    let most = 0;
    for (let t = 0; t <= state.steps; t += Math.ceil(state.steps / 100)) {
      const found = value(t);
      if (Number.isFinite(found)) most = Math.max(most, found);
    }
    walker.once[key] = most;
  }
  return walker.once[key];
}
