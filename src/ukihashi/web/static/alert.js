// The detector's page: parts that change are sent ready-made by the server; a capture file goes to it as it is.
"use strict";

const main = document.querySelector("main");

// Put `html` in place of what a part shows. Rows that are as they were stay, so that neither focus nor selection is lost.
function show(part, html) {
  const fresh = document.createElement("template");
  fresh.innerHTML = html;
  const focused = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
  for (const details of fresh.content.querySelectorAll("details")) {
    const before = [...part.querySelectorAll("details")].find((one) => one.className === details.className);
    if (before) details.open = before.open;
  }
  for (const row of fresh.content.querySelectorAll("tr[id]")) {
    const before = document.getElementById(row.id);
    if (before && part.contains(before) && before.outerHTML === row.outerHTML) row.replaceWith(before);
    else if (part.dataset.filled && !before) row.classList.add("fresh");
  }
  part.replaceChildren(fresh.content);
  part.dataset.filled = "1";
  if (focused) part.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
}

if (main?.dataset.parts) {
  const address = new URL("/live", location.href);
  for (const [name, value] of new URLSearchParams(location.search)) address.searchParams.set(name, value);
  address.searchParams.set("parts", main.dataset.parts);
  const source = new EventSource(address);
  for (const name of main.dataset.parts.split(",")) {
    const part = document.getElementById(name);
    part.dataset.filled = "1";
    source.addEventListener(name, (event) => show(part, event.data));
  }
  const notice = document.getElementById("cut");
  let waiting = 0;
  source.addEventListener("error", () => {
    main.classList.add("cut");
    waiting ||= setTimeout(() => (notice.hidden = false), 3000);
  });
  source.addEventListener("open", () => {
    main.classList.remove("cut");
    notice.hidden = true;
    clearTimeout(waiting);
    waiting = 0;
  });
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", (event) => event.persisted && location.reload()); // kept by the browser, without its stream
}

const drop = document.getElementById("drop");
if (drop) {
  const trouble = document.getElementById("trouble");
  const field = document.getElementById("file");

  const judge = async (file) => {
    trouble.hidden = true;
    const headers = {
      "Content-Type": "application/octet-stream",
      "X-CSRF": drop.dataset.csrf,
      "X-File-Name": encodeURIComponent(file.name).slice(0, 600),
    };
    try {
      const answer = await fetch(drop.dataset.to, { method: "POST", body: file, headers });
      const told = answer.headers.get("Content-Type")?.startsWith("application/json") ? await answer.json() : {};
      if (told.trouble) {
        trouble.textContent = told.trouble;
        trouble.hidden = false;
      }
    } catch {
      // The server stopped reading: what it says stands in the result.
    }
    field.value = "";
  };

  field.addEventListener("change", () => field.files[0] && judge(field.files[0]));
  addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  addEventListener("dragleave", (event) => event.relatedTarget || drop.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const file = event.dataTransfer.files[0];
    if (file) judge(file);
  });

  // A form of ours is sent aside: leaving the page would end a file that is still being sent.
  document.getElementById("judged").addEventListener("submit", (event) => {
    event.preventDefault();
    fetch(event.target.action, { method: "POST", body: new URLSearchParams(new FormData(event.target)) });
  });
}
