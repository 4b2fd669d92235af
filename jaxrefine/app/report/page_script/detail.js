// What is known of the particle that was clicked, and its images.

class Detail {
  constructor(store, views) {
    Object.assign(this, { store, views });
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
    const view = this.views.particles[row];
    if (!view) {
      const text = this.views.advice;
      box.append(element("p", { className: "soft small", text }));
      return box;
    }
    const names = ["image", "projection", "difference", "peak"];
    const captions = {
      image: `box image, low-passed at ${view.low_pass} Å`,
      projection: "projection × CTF",
      difference: "difference",
      peak: `z at each position: ${view.peak_range.join(" to ").replaceAll("-", "−")}`,
    };
    for (const name of names) {
      const figure = element("figure");
      const canvas = this.canvasOf(view[name]);
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", captions[name]);
      figure.append(canvas, element("figcaption", { text: captions[name] }));
      box.append(figure);
    }
    return box;
  }

  canvasOf({ width, height, data }) {
    const grey = bytesOf(data);
    const canvas = element("canvas", { width: String(width), height: String(height) });
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    for (let i = 0; i < grey.length; i++) {
      image.data.set([grey[i], grey[i], grey[i], 255], 4 * i);
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }
}
