// What is known of the particle that was clicked, and its images.

class Detail {
  constructor(store, views) {
    Object.assign(this, { store, views });
    const rows = new Int32Array(bytesOf(views.rows).buffer);
    this.ranges = new Int16Array(bytesOf(views.z_ranges).buffer);
    this.places = new Map(Array.from(rows, (row, place) => [row, place]));
    this.host = document.getElementById("detail");
    store.on((changes) => {
      if (changes.has("picked")) this.show(store.picked);
      if (changes.has("hovered")) this.hint(store.hovered);
    });
  }

  hint(row) {
    const line = document.getElementById("hint");
    if (row < 0) {
      line.textContent = "";
      return;
    }
    const { store } = this;
    const some = ["z_match", "z", "tilt", "defocus"].filter((name) => store.columns.has(name));
    const numbers = some.map((name) =>
      `${store.columns.get(name).title} ${store.textWithUnit(name, row)}`);
    line.textContent = [`particle ${store.label(row)}`, ...numbers, store.status.of(row)].join(" · ");
  }

  show(row) {
    const { store } = this;
    if (row < 0) {
      const text = "Click a particle in a plot, in the table or in a micrograph.";
      this.host.replaceChildren(element("p", { className: "soft small", text }));
      return;
    }
    const title = element("h3", { text: `Particle ${store.label(row)}` });
    const where = element("p", { className: "small", text: store.micrograph.of(row) });
    const known = [`Status: ${store.status.of(row)}`];
    if (store.reference) known.push(`Reference: ${store.reference.of(row)}`);
    const status = element("p", { className: "small", text: known.join(" · ") });
    this.host.replaceChildren(title, where, status, this.images(row), this.numbers(row));
  }

  numbers(row) {
    const list = element("dl");
    for (const column of this.store.columns.values()) {
      const text = this.store.textWithUnit(column.name, row);
      list.append(element("dt", { text: column.title }), element("dd", { text }));
    }
    return list;
  }

  images(row) {
    const box = element("div", { className: "images" });
    const { views } = this;
    const say = (text) =>
      box.replaceChildren(element("p", { className: "soft small", text }));
    const place = this.places.get(row);
    if (place === undefined) {
      say(views.advice);
      return box;
    }
    const z = [0, 1].map((end) => fixed(this.ranges[2 * place + end] * views.z_step, 1));
    const captions = [
      `box image, low-passed at ${views.low_pass} Å`,
      "projection × CTF",
      "difference",
      `z at each position: ${z.join(" to ")}`,
    ];
    const canvases = captions.map((caption) => {
      const figure = element("figure");
      const canvas = element("canvas");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", caption);
      figure.append(canvas, element("figcaption", { text: caption }));
      box.append(figure);
      return canvas;
    });
    const source = views.sheets[Math.floor(place / views.per_sheet)];
    const sheet = new Image();
    sheet.onload = () => {
      const side = sheet.width / canvases.length;
      const top = (place % views.per_sheet) * side;
      canvases.forEach((canvas, i) => {
        canvas.width = canvas.height = side;
        const context = canvas.getContext("2d");
        context.drawImage(sheet, i * side, top, side, side, 0, 0, side, side);
      });
    };
    sheet.onerror = () => say(`The image ${source} is missing in the folder of this page.`);
    sheet.src = source;
    return box;
  }
}
