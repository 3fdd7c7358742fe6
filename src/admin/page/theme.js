// Light or dark: the system's choice unless the user made one. Runs before the first paint, so that nothing flashes.
"use strict";
{
    const chosen = localStorage.getItem("warren-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
}
