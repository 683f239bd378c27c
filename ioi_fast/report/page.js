"use strict";
(() => {
  const tip = document.getElementById("tip");
  let described = null;

  function hide() {
    described = null;
    tip.hidden = true;
  }

  function show(item, label, text) {
    tip.firstElementChild.textContent = label;
    tip.lastElementChild.textContent = text;
    tip.hidden = false;
    const box = item.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const left = box.left + box.width / 2 - own.width / 2;
    const above = box.top - own.height - 8;
    tip.style.left = Math.max(6, Math.min(left, innerWidth - own.width - 6)) + "px";
    tip.style.top = (above > 6 ? above : box.bottom + 8) + "px";
  }

  function describe(item) {
    described = item;
    if (item.matches(".cell")) return show(item, item.dataset.label, item.dataset.value);
    const group = item.parentElement, query = group.children[group.dataset.query];
    const role = item.querySelector(".role").textContent;
    const name = (token) => "\u201c" + token.querySelector(".text").textContent + "\u201d";
    show(item, name(item) + (role ? " " + role : ""),
      item.style.getPropertyValue("--weight") + " of the attention from " + name(query));
  }

  // The row of weights of another query token, in the place of the one shown.
  function lookFrom(group, query) {
    const weights = JSON.parse(group.parentElement.querySelector(".weights").textContent);
    if (weights.length < 2) return;
    group.dataset.query = query;
    [...group.children].forEach((token, index) => {
      const weight = weights[query][index].toFixed(3);
      token.style.setProperty("--weight", weight);
      token.classList.toggle("query", index === query);
      const [text, role] = [...token.children].map((part) => part.textContent);
      token.setAttribute("aria-label", text + (role ? " " + role : "") + ": " + weight);
    });
  }

  const itemOf = (event) => event.target.closest?.(".cell, .token");
  for (const name of ["pointerover", "focusin"])
    document.addEventListener(name, (event) => { if (itemOf(event)) describe(itemOf(event)); });
  for (const name of ["pointerout", "focusout"])
    document.addEventListener(name, (event) => { if (itemOf(event)) hide(); });
  // The arrow keys may scroll: the tip stays with its cell.
  document.addEventListener("scroll", () => { if (described) describe(described); },
    { capture: true, passive: true });

  document.addEventListener("click", (event) => {
    const token = itemOf(event);
    if (!token?.matches(".token")) return;
    lookFrom(token.parentElement, Number(token.dataset.index));
    describe(token);
  });

  // One stop of the Tab key a figure; the arrow keys move inside it.
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    const item = itemOf(event);
    if (!item) return;
    const group = item.closest("[data-columns]"), columns = Number(group.dataset.columns);
    const items = [...group.querySelectorAll(".cell, .token")], here = items.indexOf(item);
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    const column = here % columns;
    const next = event.key === "Home" ? here - column
      : event.key === "End" ? here - column + columns - 1 : here + (steps[event.key] || 0);
    if (next === here || !items[next]) return;
    event.preventDefault();
    item.tabIndex = -1;
    items[next].tabIndex = 0;
    items[next].focus();
  });
})();
