"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const title = JSON.parse(document.getElementById("title").textContent);
  const main = document.getElementById("main"), tip = document.getElementById("tip");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const known = (v) => typeof v === "number";

  // ---- elements. Names come from files of unknown origin: they are text, never markup.

  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
    element.append(...children.filter((child) => child !== null));
    return element;
  }

  // a line that opens to the tensors it is about
  function fold(text, list) {
    const items = list.slice(0, 500).map((t) => make("li", {}, make("code", {}, t.name)));
    if (list.length > 500) items.push(make("li", {}, `and ${whole(list.length - 500)} more`));
    return make("details", {}, make("summary", {}, `${text} (${whole(list.length)} tensor${list.length > 1 ? "s" : ""})`), make("ul", {}, ...items));
  }

  function section(heading, text) {
    const element = make("section", {}, make("h2", {}, heading));
    if (text) element.append(make("p", {}, text));
    main.append(element);
    return element;
  }

  // ---- numbers

  const plain = (v) => !known(v) ? "unknown" : v === 0 ? "0" : Math.abs(v) >= 1e-3 && Math.abs(v) < 1e5
    ? String(Number(v.toPrecision(3))) : v.toExponential(1);
  const percent = (v) => known(v) ? `${plain(100 * v)} %` : "unknown";
  const signed = (v) => !known(v) ? "unknown" : Math.abs(v) < 5e-4 ? "0.000" : (v < 0 ? "\u2212" : "+") + Math.abs(v).toFixed(3);
  const whole = (n) => n.toLocaleString("en");

  const largest = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);
  const smallest = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);

  function push(lists, key, value) {
    if (!lists.has(key)) lists.set(key, []);
    lists.get(key).push(value);
  }

  function quantile(values, share) {
    const sorted = values.filter(known).sort((a, b) => a - b);
    return sorted.length ? sorted[Math.floor(share * (sorted.length - 1))] : null;
  }

  // ---- colours: lightness grows evenly along each ramp (OKLCH), so it reads in grey, too

  function linear(lightness, chroma, hue) {
    const a = chroma * Math.cos(hue * Math.PI / 180), b = chroma * Math.sin(hue * Math.PI / 180);
    const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
    const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
    const s = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3;
    return [4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
      -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
      -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s];
  }

  // a screen has no colour of every lightness and chroma: lightness stays, chroma gives way
  function rgb(lightness, chroma, hue) {
    let parts = linear(lightness, chroma, hue);
    while (chroma > 0.001 && parts.some((v) => v < 0 || v > 1)) {
      chroma *= 0.95;
      parts = linear(lightness, chroma, hue);
    }
    const encoded = parts.map((v) => Math.round(255 * (v <= 0.0031308 ? 12.92 * Math.max(0, v) : 1.055 * Math.min(1, v) ** (1 / 2.4) - 0.055)));
    return `rgb(${encoded.join(" ")})`;
  }

  // from the page's own shade to what stands out most on it: yellow, green, blue; the other way round when dark
  function sequential(x) {
    return dark.matches ? rgb(0.27 + 0.66 * x, 0.07 + 0.09 * x, 280 - 175 * x)
      : rgb(0.96 - 0.64 * x, 0.05 + 0.10 * x, 105 + 175 * x);
  }

  // blue below the middle, orange above it
  function diverging(x) {
    const way = 2 * x - 1, far = Math.abs(way), hue = way < 0 ? 255 : 55;
    return dark.matches ? rgb(0.29 + 0.50 * far, 0.155 * far, hue) : rgb(0.95 - 0.43 * far, 0.16 * far, hue);
  }

  // ---- what there is

  const models = data.models, names = models.map((m) => m.name);
  names.forEach((name, i) => {
    const before = models.slice(0, i).filter((m) => m.name === name).length;
    if (before) names[i] = `${name} (${before + 1})`;
  });
  const donors = models.map((_, i) => i).filter((i) => models[i].tensors > 0);
  const pairs = data.cosines.map(([a, b]) => [a, b]);
  const tensors = data.tensors;
  const merged = tensors.filter((t) => t.reference !== undefined);
  const references = [...new Set(merged.map((t) => t.reference))];

  const input = (t, model) => t.inputs.find((i) => i.model === model);
  const donor = (t, model, key) => {
    const found = t.reference === model ? undefined : input(t, model);
    return found ? found[key] : undefined;
  };
  const parameter = (t, model, key) => input(t, model)?.parameters?.[key];
  const cosine = (t, a, b) => t.cosines?.find(([x, y]) => (x === a && y === b) || (x === b && y === a))?.[2];

  // ---- what of a tensor is told beside its cell

  function facts(t) {
    const rows = [["shape", `${t.dtype} [${t.shape.join(", ")}]`]];
    for (const d of donors) {
      if (!known(donor(t, d, "relative"))) continue;
      for (const [key, value] of Object.entries(input(t, d).parameters || {})) rows.push([`${names[d]}: ${key}`, plain(value)]);
      rows.push([`${names[d]}: size`, plain(donor(t, d, "relative"))], [`${names[d]}: kept`, percent(donor(t, d, "kept"))]);
    }
    for (const [key, value] of Object.entries(t.parameters || {})) rows.push([key, plain(value)]);
    for (const [a, b, v] of t.cosines || []) rows.push([`cosine of ${names[a]}, ${names[b]}`, signed(v)]);
    if (known(t.conflict)) rows.push(["sign conflict", percent(t.conflict)]);
    if (t.reference !== undefined) rows.push(["survives rounding", percent(t.survival)]);
    return rows.length > 18 ? rows.slice(0, 18).concat([["\u2026", "see the table"]]) : rows;
  }

  // several tensors share a cell where experts do
  function describe(cell, metric) {
    const values = cell.tensors.map(metric.value).filter(known);
    if (cell.tensors.length === 1) {
      const t = cell.tensors[0];
      return [make("strong", {}, `${metric.label}: ${metric.show(metric.value(t))}`), make("br"), make("code", {}, t.name),
        make("dl", {}, ...facts(t).flatMap(([k, v]) => [make("dt", {}, k), make("dd", {}, v)]))];
    }
    return [make("strong", {}, `${metric.label}: ${metric.show(cell.value)} on average`), make("br"),
      `${values.length} of ${cell.tensors.length} tensors, ${metric.show(smallest(values))} to ${metric.show(largest(values))}`,
      make("br"), make("code", {}, cell.tensors[0].name)];
  }

  let selected = null;

  function select(td, x, y) {
    selected?.classList.remove("at");
    selected = td;
    tip.hidden = !td;
    if (!td) return;
    td.classList.add("at");
    tip.replaceChildren(...describe(td.cell, td.metric));
    const box = td.getBoundingClientRect();
    const left = (x ?? box.left) + 14, top = (y ?? box.bottom) + 10;
    tip.style.left = `${Math.max(8, Math.min(left, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${top + tip.offsetHeight > innerHeight - 8 ? Math.max(8, top - tip.offsetHeight - 28) : top}px`;
  }

  const cellOf = (event) => {
    const td = event.target.closest?.(".map td");
    return td?.cell ? td : null;
  };
  document.addEventListener("pointermove", (e) => { if (e.pointerType === "mouse" && (cellOf(e) || selected)) select(cellOf(e), e.clientX, e.clientY); });
  document.addEventListener("click", (e) => select(cellOf(e), e.clientX, e.clientY));

  function move(map, dx, dy) {
    const rows = [...map.tBodies[0].rows].map((row) => [...row.cells].filter((c) => c.tagName === "TD"));
    const at = map.contains(selected) ? selected : null;
    let row = at ? rows.findIndex((r) => r.includes(at)) : 0, column = at ? rows[row].indexOf(at) : -dx;
    row = Math.max(0, Math.min(rows.length - 1, row + (at ? dy : 0)));
    column = Math.max(0, Math.min(rows[row].length - 1, column + dx));
    const td = rows[row][column];
    td.scrollIntoView({block: "nearest", inline: "nearest"});
    if (td.cell) select(td);
  }

  document.addEventListener("keydown", (e) => {
    const way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[e.key];
    if (e.key === "Escape") select(null);
    if (!way || !e.target.classList?.contains("map")) return;
    e.preventDefault();
    move(e.target, ...way);
  });

  // ---- heat maps: a row for each kind of tensor, a column for each layer; what is outside of layers below

  const painted = [];

  function paint() {
    for (const p of painted) p();
  }
  dark.addEventListener("change", paint);

  function gather(list, metric) {
    const rows = new Map();
    for (const t of list) {
      const key = t.stack === undefined ? t.name : t.kind;
      if (!rows.has(key)) rows.set(key, new Map());
      const cells = rows.get(key), at = t.layer ?? 0;
      if (!cells.has(at)) cells.set(at, {tensors: []});
      cells.get(at).tensors.push(t);
    }
    for (const cells of rows.values()) {
      for (const cell of cells.values()) {
        let sum = 0, weight = 0;
        for (const t of cell.tensors) {
          const v = metric.value(t);
          if (known(v)) { sum += v * t.elements; weight += t.elements; }
        }
        cell.value = weight ? sum / weight : null;
      }
    }
    return rows;
  }

  function fill(td, cell, metric) {
    if (!cell || !known(cell.value)) {
      td.className = "none";
      td.setAttribute("aria-label", "none");
      return;
    }
    td.cell = cell;
    td.metric = metric;
    td.setAttribute("aria-label", metric.show(cell.value));
    painted.push(() => { td.style.background = metric.colour(cell.value); });
  }

  function row(label, cells, count, metric, type) {
    const short = label.replace(/\.weight$/, "");
    const tr = make("tr", {class: type}, make("th", {scope: "row", title: label}, make("span", {}, make("bdi", {}, short))));
    if (type.includes("outside")) {
      const td = make("td", {colspan: count});
      fill(td, cells.get(0), metric);
      tr.append(td);
      return tr;
    }
    for (let layer = 0; layer < count; layer++) {
      const td = make("td");
      fill(td, cells.get(layer), metric);
      tr.append(td);
    }
    return tr;
  }

  function map(list, stack, metric) {
    const inside = stack ? gather(list.filter((t) => t.stack === stack.index), metric) : new Map();
    const outside = gather(list.filter((t) => t.stack === undefined), metric);
    const count = stack ? stack.layers : 1, body = make("tbody"), head = make("tr", {}, make("th"));
    const step = count <= 12 ? 1 : count <= 40 ? 5 : 10;
    for (let layer = 0; stack && layer < count; layer++)
      head.append(make("th", {}, layer % step === 0 ? String(layer) : ""));
    for (const [label, cells] of inside) body.append(row(label, cells, count, metric, "layers"));
    let first = inside.size > 0;
    for (const [label, cells] of stack?.index ? [] : outside) {
      if (![...cells.values()].some((cell) => known(cell.value))) continue;
      body.append(row(label, cells, count, metric, first ? "outside first" : "outside"));
      first = false;
    }
    return body.rows.length ? make("div", {class: "scroll"}, make("table", {class: "map", tabindex: 0, "aria-label": `${metric.label}, by layer`},
      make("thead", {}, head), body)) : null;
  }

  function legend(metric, missing) {
    const bar = make("i"), [least, most] = [metric.floored ? "\u2264 " : "", metric.capped ? "\u2265 " : ""];
    painted.push(() => {
      const stops = Array.from({length: 17}, (_, i) => metric.colour(metric.at(i / 16)));
      bar.style.background = `linear-gradient(90deg, ${stops.join(", ")})`;
    });
    return make("div", {class: "legend"}, make("div", {class: "ramp"}, bar, make("div", {}, make("span", {}, least + metric.show(metric.at(0))),
      make("span", {}, metric.show(metric.at(0.5))), make("span", {}, most + metric.show(metric.at(1))))),
      missing ? make("span", {}, make("span", {class: "swatch"}), "none or unknown") : null);
  }

  function scale(metric, values, domain) {
    const most = largest(values.map(Math.abs)), usual = quantile(values.map(Math.abs), 0.97);
    const cap = !domain && !metric.diverges && !metric.log && most > 3 * usual && usual > 0;
    const top = domain ? domain[1] : cap ? usual : most || 1;
    metric.capped = cap;
    metric.domain = domain || (metric.diverges ? [-top, top] : [Math.min(0, smallest(values)), top]);
    if (metric.log) {
      const bottom = smallest(values.filter((v) => v > 0));
      metric.floored = bottom < top / 1000;
      metric.domain = [Math.max(top / 1000, bottom), top];
    }
    const [low, high] = metric.domain;
    metric.at = (x) => metric.log ? low * (high / low) ** x : low + (high - low) * x;
    const place = (v) => metric.log ? (v > 0 ? Math.log(v / low) / Math.log(high / low) : 0) : (v - low) / (high - low || 1);
    metric.colour = (v) => (metric.diverges ? diverging : sequential)(Math.min(1, Math.max(0, place(v))));
  }

  // metrics: {name, show, value(t), diverges}; maps side by side have one scale
  function figures(heading, text, metrics, domain) {
    const there = metrics.map((m) => merged.map(m.value).filter(known));
    if (!there.some((values) => values.length)) return false;
    const all = there.flat(), where = section(heading, text), grid = make("div", {class: "figures"});
    metrics.forEach((metric, i) => {
      const values = there[i];
      metric.label = `${heading}, ${metric.name}`;
      if (!values.length) return;
      const figure = make("figure", {}, make("h3", {}, metric.name));
      const same = values.every((v) => v === values[0]);
      if (same) {
        figure.append(make("p", {class: "soft"}, `${metric.show(values[0])} in all ${whole(values.length)} tensors that have one`));
      } else {
        scale(metric, all, domain);
        const stacks = data.stacks.map((s, index) => ({...s, index}));
        for (const stack of stacks.length ? stacks : [null]) {
          const drawn = map(merged, stack, metric);
          if (!drawn) continue;
          if (stacks.length > 1) figure.append(make("p", {class: "soft"}, make("code", {}, `${stack.prefix}*`)));
          figure.append(drawn);
        }
        figure.append(legend(metric, true));
      }
      grid.append(figure);
    });
    where.append(grid);
    return true;
  }

  // ---- the parts of the page

  function about() {
    const base = references.length === 1 ? names[references[0]] : null;
    const based = donors.length && data.has_base && data.base_rule !== "ignored";
    document.title = `${title}: merge report`;
    document.getElementById("name").textContent = title;
    const what = `${data.title || data.method} of ${(based ? donors.map((i) => names[i]) : names).join(", ")}, served in ${data.dtype}. ${whole(tensors.length)} tensors, of which ${whole(merged.length)} are merged. `;
    const against = !base ? "Sizes are against the first model of each tensor, for this merge has no base. "
      : based ? `Task vectors are differences from the base model, ${base}. `
        : `The method has no base: task vectors are differences from ${base}. `;
    document.getElementById("about").textContent = what + (merged.length ? against : "") + `Made by meldfs ${data.meldfs}.`;
  }

  function overview() {
    const cards = make("div", {class: "cards"});
    const card = (value, text) => cards.append(make("div", {class: "card"}, make("b", {}, value), make("span", {}, text)));
    if (known(data.conflict)) card(percent(data.conflict), "of the elements that two or more models change are pulled both ways");
    if (known(data.survival)) card(percent(data.survival), `of the merged change survives rounding to ${data.dtype}`);
    for (const [a, b, v] of data.cosines.slice(0, 6)) card(signed(v), `cosine of ${names[a]} and ${names[b]}`);
    const table = make("table", {class: "list"}, make("thead", {}, make("tr", {}, ...["model", "tensors", "size", "elements changed",
      "elements kept", "length kept"].map((h, i) => make("th", i ? {} : {class: "text"}, h)))));
    const body = table.createTBody();
    for (const d of donors) {
      const m = models[d];
      body.append(make("tr", {}, make("td", {class: "name"}, names[d]), ...[whole(m.tensors), plain(m.relative), percent(m.changed),
        percent(m.kept), percent(m.kept_length)].map((v) => make("td", {}, v))));
    }
    const where = section("Overview", donors.length ? "Size is the length of the task vector over that of what it is added to. Kept is what the method uses of it, before weights."
      : "No two models meet in a tensor: there is nothing to compare.");
    where.append(cards);
    if (donors.length) where.append(make("div", {class: "scroll"}, table));
  }

  function outliers() {
    const found = [];
    const add = (what, show, value, lowest, count, least) => {
      const list = merged.map((t) => [t, value(t)]).filter(([, v]) => known(v));
      const usual = quantile(list.map(([, v]) => v), 0.5);
      list.sort((a, b) => lowest ? a[1] - b[1] : b[1] - a[1]);
      for (const [t, v] of list.slice(0, count)) if (least(v, usual)) found.push([what, t.name, show(v), show(usual)]);
    };
    for (const d of donors) {
      add(`${names[d]} changes it much`, plain, (t) => donor(t, d, "relative"), false, 3, (v, usual) => v > 1.5 * usual && v > 0);
      add(`little of ${names[d]} is kept`, percent, (t) => donor(t, d, "kept_length"), true, 2, (v, usual) => v < 0.8 * usual);
    }
    for (const [a, b] of pairs)
      add(`${names[a]} and ${names[b]} oppose`, signed, (t) => cosine(t, a, b), true, 2, (v) => v < 0);
    add("signs conflict", percent, (t) => t.conflict, false, 3, (v, usual) => v > 1.1 * usual);
    add("rounding loses most", percent, (t) => t.survival, true, 3, (v) => v < 0.9);
    const odd = new Map();
    const note = (text, t) => push(odd, text, t);
    for (const t of tensors) {
      const before = t.inputs.filter((i) => i.nan || i.infinite);
      if (t.failed) note(`Failed: ${t.failed}`, t);
      for (const i of before) note(`NaN or infinities in ${names[i.model]}`, t);
      if (!before.length && (t.result_nan || t.result_infinite)) note("NaN or infinities in the result, which no input has", t);
      for (const d of donors) if (models[d].relative === 0 && known(donor(t, d, "relative"))) note(`${names[d]} equals what it is held against and changes nothing`, t);
    }
    const where = section("What stands out", found.length ? "The farthest from what is usual in this merge." : odd.size ? "" : "Nothing: no tensor is far from the others.");
    for (const [text, list] of odd) where.append(fold(text, list));
    if (!found.length) return;
    const table = make("table", {class: "list"}, make("thead", {}, make("tr", {}, make("th", {class: "text"}, "what"), make("th", {}, "value"),
      make("th", {}, "median"), make("th", {class: "name"}, "tensor"))));
    const body = table.createTBody();
    for (const [what, name, value, usual] of found)
      body.append(make("tr", {}, make("td", {class: "text"}, what), make("td", {}, value), make("td", {}, usual), make("td", {class: "name"}, make("code", {}, name))));
    where.append(make("div", {class: "scroll"}, table));
  }

  function parameters() {
    const own = new Set(), shared = new Set();
    for (const t of merged) {
      for (const key of Object.keys(t.parameters || {})) shared.add(key);
      for (const i of t.inputs) for (const key of Object.keys(i.parameters || {})) own.add(key);
    }
    for (const key of own) {
      figures(`${key[0].toUpperCase()}${key.slice(1)} of each model`, "The value that filters and gradients come to.",
        models.map((_, m) => ({name: names[m], show: plain, value: (t) => parameter(t, m, key), diverges: merged.some((t) => t.inputs.some((i) => i.parameters?.[key] < 0))})));
    }
    const metrics = [...shared].map((key) => ({name: key, show: plain, value: (t) => t.parameters?.[key]}));
    const constant = metrics.every((m) => new Set(merged.map(m.value)).size === 1);
    if (constant && metrics.length)
      section("Parameters of all models", metrics.map((m) => `${m.name} ${plain(m.value(merged[0]))}`).join(", ") + " in all tensors.");
    else
      for (const m of metrics) figures(`Parameter ${m.name}`, "", [m]);
  }

  function maps() {
    figures("Size of the task vectors", "Length of each model's difference over the length of what it is added to; colours by order of magnitude.",
      donors.map((d) => ({name: names[d], show: plain, value: (t) => donor(t, d, "relative"), log: true})));
    figures("Directions", "Cosine of two models' task vectors: 0 where they have nothing to do with each other, below 0 (blue) where one undoes the other.",
      pairs.map(([a, b]) => ({name: `${names[a]} and ${names[b]}`, show: signed, value: (t) => cosine(t, a, b), diverges: true})));
    figures("Sign conflict", "Of the elements that two or more models change, the share that is pulled both up and down.",
      [{name: "all models", show: percent, value: (t) => t.conflict}], [0, 1]);
    if (merged.some((t) => t.inputs.some((i) => i.kept < 1))) {
      figures("What is kept, in elements", "Share of the elements a model changes that the method uses: pruning, random masks and sign election leave out the others.",
        donors.map((d) => ({name: names[d], show: percent, value: (t) => donor(t, d, "kept")})), [0, 1]);
      figures("What is kept, in length", "Length of what is kept of a task vector over its whole length: what is left out is often small.",
        donors.map((d) => ({name: names[d], show: percent, value: (t) => donor(t, d, "kept_length")})), [0, 1]);
    } else if (donors.length) {
      section("What is kept", "All of it: no element that a model changes is left out.");
    }
    const drawn = figures("What survives rounding", `Share of the merged change, as computed without rounding, that is left once it is rounded to the types asked for.`,
      [{name: `served in ${data.dtype}`, show: percent, value: (t) => t.survival}], [0, 1]);
    if (!drawn && data.survival_unknown)
      section("What survives rounding", `Not known: ${data.method} chooses elements by rounded values, and would choose others without rounding. With dtype: float32 in the recipe it is known.`);
    else if (data.survival_unknown)
      main.lastChild.append(make("p", {}, `Not known for ${whole(data.survival_unknown)} tensors, where ${data.method} chooses elements by rounded values.`));
  }

  function leftOut() {
    const groups = new Map();
    const add = (text, t) => push(groups, text, t);
    for (const t of tensors) {
      for (const a of t.left_out || []) add(`${a.model} is left out: ${a.why}`, t);
      if (t.note && !(t.left_out || []).some((a) => a.why === t.note)) add(`${t.how === "merged" ? "Merged" : "Not merged"}: ${t.note}`, t);
      for (const i of t.inputs) if (i.tied) add(`${names[i.model]} has its head tied: its embedding ${i.tied} is read instead`, t);
      if (!t.note && !t.left_out && t.how !== "merged") add(`Not merged: ${t.how} from ${names[t.inputs[0].model]}`, t);
    }
    const where = section("What was left out, and why", groups.size ? "" : "Nothing: every model has every tensor, in one shape.");
    for (const [text, list] of groups) where.append(fold(text, list));
  }

  function table() {
    const columns = [{name: "tensor", value: (t) => t.name, text: true}, {name: "shape", value: (t) => t.elements, show: (v, t) => t.shape.join(" x ") || "scalar"},
      {name: "how", value: (t) => t.how, text: true}];
    for (const d of donors) {
      columns.push({name: `size of ${names[d]}`, value: (t) => donor(t, d, "relative"), show: plain},
        {name: `kept of ${names[d]}`, value: (t) => donor(t, d, "kept"), show: percent});
    }
    for (const [a, b] of pairs) columns.push({name: `cosine of ${names[a]}, ${names[b]}`, value: (t) => cosine(t, a, b), show: signed});
    columns.push({name: "sign conflict", value: (t) => t.conflict, show: percent}, {name: "survives rounding", value: (t) => t.survival, show: percent});
    const used = columns.filter((c) => c.text || tensors.some((t) => known(c.value(t))));

    const where = section("All tensors", "A click on a heading sorts by it.");
    const filter = make("input", {type: "search", placeholder: "part of a name", "aria-label": "show tensors whose name holds"});
    const head = make("tr"), body = make("tbody"), more = make("button", {class: "more", type: "button"}, "show more");
    let by = null, down = true, limit = 60;

    function draw() {
      const text = filter.value.trim();
      let list = tensors.filter((t) => t.name.includes(text));
      if (by) {
        const way = down ? -1 : 1, rank = (v) => known(v) || typeof v === "string" ? 0 : 1;
        list = list.map((t) => [t, by.value(t)]).sort(([, a], [, b]) => rank(a) - rank(b) || way * (a < b ? -1 : a > b ? 1 : 0)).map(([t]) => t);
      }
      body.replaceChildren(...list.slice(0, limit).map((t) => make("tr", {}, ...used.map((c) => {
        const v = c.value(t);
        if (c.text) return make("td", {class: c.name === "tensor" ? "name" : "text"}, c.name === "tensor" ? make("code", {}, v) : v);
        return make("td", {}, known(v) ? c.show(v, t) : "");
      }))));
      more.hidden = list.length <= limit;
      more.textContent = `show more (${whole(Math.max(0, list.length - limit))})`;
    }

    for (const c of used) {
      const button = make("button", {type: "button"}, c.name), th = make("th", {class: c.name === "tensor" ? "name" : c.text ? "text" : "", scope: "col"}, button);
      button.addEventListener("click", () => {
        down = by === c ? !down : !c.text;
        by = c;
        for (const other of head.children) other.removeAttribute("aria-sort");
        th.setAttribute("aria-sort", down ? "descending" : "ascending");
        draw();
      });
      head.append(th);
    }
    filter.addEventListener("input", draw);
    more.addEventListener("click", () => { limit += 500; draw(); });
    where.append(filter, make("div", {class: "scroll"}, make("table", {class: "list"}, make("thead", {}, head), body)), more);
    draw();
  }

  about();
  overview();
  outliers();
  maps();
  parameters();
  leftOut();
  table();
  paint();
})();
