element.addEventListener("click", (event) => {
    const card = event.target.closest("[data-hit]");
    if (!card) return;
    document.querySelectorAll(".ciea-card[aria-pressed]").forEach((other) => other.removeAttribute("aria-pressed"));
    card.setAttribute("aria-pressed", "true");
    trigger("click", {hit: card.dataset.hit});
});
