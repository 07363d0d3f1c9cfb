"use strict";

(async () => {
  // What is large in this page is deflated.
  async function unpacked(name) {
    const bytes = Uint8Array.from(atob(document.getElementById(name).textContent), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
  }

  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code); // not everywhere may a page reach the clipboard
        button.textContent = document.execCommand("copy") ? "Copied" : "Selected";
      }
    });
  }

  const save = document.getElementById("save");
  if (!("DecompressionStream" in window)) {
    for (const plot of document.querySelectorAll(".plot")) plot.textContent = "The pictures need a newer browser.";
    save?.replaceWith("All numbers need a newer browser, too.");
    return;
  }
  const library = document.createElement("script");
  library.textContent = await unpacked("plotly");
  document.head.append(library);
  const pictures = JSON.parse(await unpacked("pictures"));
  const walked = JSON.parse(await unpacked("walks"));
  const faint = new Set();
  let pointed = null; // the rule that the pointer or the keyboard is at, shown alone
  const current = {};
  const drawn = {}; // the traces of each picture, as they were drawn
  const root = document.documentElement;
  const PAPER = { width: 680, height: 720 }; // pixels, less than A4 and US Letter hold within the margins, below a lead
  const FAINT = 0.13;
  const touch = matchMedia("(pointer: coarse)").matches;
  const config = {
    displayModeBar: false, // it offers to send the data to a web service
    responsive: true,
  };

  // "@c3/0.15" is the page's colour --c3 at that opacity.
  function themed(value, styles) {
    if (Array.isArray(value)) return value.map((item) => themed(item, styles));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, themed(item, styles)]));
    }
    if (typeof value !== "string" || !/^@[a-z]+\d?(\/[\d.]+)?$/.test(value)) return value;
    const [name, opacity] = value.slice(1).split("/");
    const hex = styles.getPropertyValue(`--${name}`).trim();
    if (!opacity) return hex;
    const channels = [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
    return `rgba(${channels.join(",")},${opacity})`;
  }

  function axis(own) {
    return {
      gridcolor: "@grid",
      zeroline: false,
      linecolor: "@line",
      tickcolor: "@line",
      automargin: true,
      ...own,
      title: { standoff: 12, font: { size: 13, color: "@muted" }, ...own.title },
      tickfont: { size: 12, color: "@muted", ...own.tickfont },
    };
  }

  function layoutOf(picture, view) {
    const layout = { ...picture.layout, ...view.layout };
    for (const key of Object.keys(layout)) {
      if (/^[xy]axis\d?$/.test(key)) layout[key] = axis({ ...picture.layout[key], ...layout[key] });
    }
    return {
      autosize: true,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", color: "@ink", size: 13 },
      margin: { l: 8, r: 12, t: 18, b: 8 },
      hoverlabel: { bgcolor: "@card", bordercolor: "@line", font: { color: "@ink", size: 12 } },
      dragmode: touch ? false : "zoom",
      showlegend: false,
      ...layout,
    };
  }

  // How strongly a trace is drawn; one label for a whole column says nothing of what is faint.
  function strength(trace, picture) {
    const { rule } = trace.meta;
    const strong = pointed === null ? !faint.has(rule) : pointed === rule;
    const silent = picture.layout.hovermode === "x unified" && !strong;
    return { opacity: strong ? 1 : FAINT, hoverinfo: silent ? "skip" : (trace.hoverinfo ?? "all") };
  }

  function point(rule) {
    if (pointed === rule) return;
    pointed = rule;
    for (const name of Object.keys(current)) {
      const picture = pictures[name];
      const found = drawn[name].map((trace) => strength(trace, picture));
      const each = (key) => found.map((one) => one[key]);
      Plotly.restyle(`plot-${name}`, { opacity: each("opacity"), hoverinfo: each("hoverinfo") });
    }
  }

  // The place of the epoch up to which walks are shown.
  const stop = () => Number(document.getElementById("plane-epoch").value);

  // The walks of a seed up to an epoch.
  function walks(picture, view) {
    const { epochs, planes } = walked;
    const last = stop();
    const plane = planes.find(({ seed }) => String(seed) === view.key);
    return picture.styles.flatMap((style) => {
      const walk = plane.walks.find(({ rule }) => rule === style.name);
      if (!walk) return []; // not run to an end
      const known = epochs.slice(0, Math.min(last + 1, walk.x.length));
      const end = known.length - 1;
      const lost = walk.lost && last > end;
      const losses = walk.losses.slice(0, end + 1);
      const atEnd = (other, one) => known.map((_, k) => (k === end ? one : other));
      const marker = {
        ...style.marker,
        color: losses.map((loss) => Math.max(Math.log10(loss), picture.layout.coloraxis.cmin)),
        size: atEnd(7, 14),
        line: { ...style.marker.line, width: atEnd(0.8, 2) },
        symbol: atEnd(style.marker.symbol, lost ? "x" : style.marker.symbol),
      };
      const text = known.map((epoch, k) => `after epoch ${epoch}: loss ${Number(losses[k].toPrecision(3))}`);
      return { ...style, x: walk.x.slice(0, end + 1), y: walk.y.slice(0, end + 1), marker, text };
    });
  }

  function draw(name) {
    const picture = pictures[name];
    const view = picture.views[current[name]];
    const styles = getComputedStyle(root);
    const printing = root.classList.contains("printing");
    drawn[name] = picture.styles.length ? walks(picture, view) : view.traces;
    const traces = drawn[name].map((trace) => ({ ...trace, ...strength(trace, picture) }));
    const layout = layoutOf(picture, view);
    const paper = { autosize: false, width: PAPER.width, height: Math.min(layout.height ?? PAPER.height, PAPER.height) };
    Plotly.react(`plot-${name}`, themed(traces, styles), themed({ ...layout, ...(printing && paper) }, styles), config);
    const note = document.getElementById(`note-${name}`);
    if (note) note.textContent = view.note;
    const printed = document.getElementById(`printed-${name}`);
    if (printed) {
      const same = picture.shared.includes(current[name]);
      const epoch = name === "plane" ? `after epoch ${walked.epochs[stop()]}, ` : "";
      printed.textContent = `Shown: ${same ? "every rule at learning rate " : epoch}${view.label}.`;
    }
  }

  function show(name, key) {
    current[name] = key;
    draw(name);
  }

  function press(buttons, pressed) {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button === pressed));
  }

  const keys = [...document.querySelectorAll(".rules [data-rule]")];
  const few = new Set(keys.filter((key) => key.getAttribute("aria-pressed") === "true"));

  function choose(key, strong) {
    faint[strong ? "delete" : "add"](key.dataset.rule);
    key.setAttribute("aria-pressed", String(strong));
  }

  for (const key of keys) {
    choose(key, few.has(key));
    const { rule } = key.dataset;
    key.addEventListener("click", () => {
      choose(key, faint.has(rule));
      Object.keys(current).forEach(draw);
    });
    key.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && point(rule));
    key.addEventListener("pointerleave", () => point(null));
    key.addEventListener("focus", () => key.matches(":focus-visible") && point(rule));
    key.addEventListener("blur", () => point(null));
  }

  for (const button of document.querySelectorAll(".rules [data-set]")) {
    button.addEventListener("click", () => {
      const { set } = button.dataset;
      keys.forEach((key) => choose(key, set === "all" || (set === "few" && few.has(key))));
      Object.keys(current).forEach(draw);
    });
  }

  for (const segments of document.querySelectorAll(".segments")) {
    const name = segments.dataset.picture;
    const buttons = [...segments.querySelectorAll("button")];
    const slide = document.querySelector(`.slide[data-picture="${name}"]`);
    const slider = slide?.querySelector("input");
    const shared = () => pictures[name].shared[Number(slider.value)];
    for (const button of buttons) {
      button.addEventListener("click", () => {
        press(buttons, button);
        const same = button.dataset.view === "shared";
        if (slide) slide.hidden = !same;
        show(name, same ? shared() : button.dataset.view);
      });
    }
    slider?.addEventListener("input", () => {
      const { label } = pictures[name].views[shared()];
      slide.querySelector("output").textContent = label;
      slider.setAttribute("aria-valuetext", label);
      show(name, shared());
    });
  }

  function slide(name, label, act) {
    const slider = document.getElementById(name);
    slider?.addEventListener("input", () => {
      const text = label(Number(slider.value));
      slider.nextElementSibling.textContent = text;
      slider.setAttribute("aria-valuetext", text);
      act(text);
    });
  }

  // While a slider is dragged, a drawing that was not begun gives way to the next.
  let frame;
  function soon(name, key) {
    current[name] = key;
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => draw(name));
  }

  slide("plane-epoch", (place) => String(walked.epochs[place]), () => soon("plane", current.plane));
  slide("plane-seed", (place) => String(walked.planes[place].seed), (seed) => soon("plane", seed));

  save?.addEventListener("click", async () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([await unpacked("race")], { type: "application/json" }));
    link.download = "race.json";
    link.click();
    URL.revokeObjectURL(link.href);
  });

  for (const name of Object.keys(pictures)) show(name, pictures[name].first);
  const canyon = document.getElementById("plot-canyon");
  canyon.on?.("plotly_hover", ({ points }) => point(points[0].data.meta.rule));
  canyon.on?.("plotly_unhover", () => point(null));

  function paper(printing) {
    root.classList.toggle("printing", printing);
    pointed = null;
    Object.keys(current).forEach(draw);
  }
  addEventListener("beforeprint", () => paper(true));
  addEventListener("afterprint", () => paper(false));

  // What is scrolled to must not end up behind the bar of rules, which is higher the more there are.
  const bar = document.querySelector(".rules");
  if (bar) new ResizeObserver(() => root.style.setProperty("--bar", `${bar.offsetHeight}px`)).observe(bar);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => Object.keys(current).forEach(draw));
})();
