// What htmx does not do: the character count while a text is typed, and a word when the server is silent.
"use strict";
document.addEventListener("input", (event) => {
  const count = document.getElementById(event.target.dataset?.count ?? "");
  if (count) count.textContent = [...event.target.value].length.toLocaleString("en-US");
});
document.addEventListener("htmx:error", () => {
  const notice = document.createElement("p");
  notice.className = "notice bad";
  notice.textContent = "The server does not answer. Nothing was changed; see whether it runs, then do it again.";
  document.getElementById("notice").replaceChildren(notice);
});
document.addEventListener("htmx:before:request", () => document.getElementById("notice").replaceChildren());
const view = document.querySelector(".views [aria-current]");
if (view) view.closest(".views").scrollLeft = view.offsetLeft - 60; // on a phone it may lie outside
