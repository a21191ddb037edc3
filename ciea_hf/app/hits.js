element.addEventListener("click", (event) => {
    const card = event.target.closest("[data-hit]");
    if (!card) return;
    card.setAttribute("aria-busy", "true"); // until the dialog opens
    trigger("click", {hit: card.dataset.hit});
});
