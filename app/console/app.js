// The page: which view is shown, whether the service is ready, and the API key.

import { api, key } from "./api.js"
import { el, plural, replace, speak, toast } from "./dom.js"
import { recogniseView } from "./recognise.js"
import { teachView } from "./teach.js"
import { classView, classesView } from "./classes.js"

const NOT_READY_S = 1
const READY_S = 15

const main = document.getElementById("main")
const views = { recognise: recogniseView, teach: teachView, classes: classesView, class: classView }
const kept = new Map() // views that keep what was dropped on them while another is looked at
let shown = null

function show() {
  const [name, argument] = decoded(location.hash.slice(1)).split(/=(.*)/s)
  const known = name in views ? name : "recognise"
  const tab = known === "class" ? "classes" : known
  for (const link of document.querySelectorAll("[data-tab]")) {
    if (link.dataset.tab === tab) link.setAttribute("aria-current", "page")
    else link.removeAttribute("aria-current")
  }
  shown?.leave?.()
  shown = viewOf(known, argument ?? null)
  replace(main, shown.node)
  document.title = `${shown.title} · Firstsight`
  shown.enter?.()
  window.scrollTo(0, 0)
}

/** What cannot be decoded was written by hand, and leads to where everything begins. */
function decoded(hash) {
  try {
    return decodeURIComponent(hash)
  } catch {
    return ""
  }
}

function viewOf(name, argument) {
  if (name === "recognise" || (name === "teach" && argument === null)) {
    if (!kept.has(name)) kept.set(name, views[name](null))
    return kept.get(name)
  }
  const view = views[name](argument)
  if (name === "teach") kept.set(name, view)
  return view
}

/** From an answer to the field where a box can be drawn in the same picture. */
window.addEventListener("teach-picture", ({ detail }) => {
  const view = teachView(null)
  kept.set("teach", view)
  view.take([detail])
  location.hash = "teach"
})

window.addEventListener("hashchange", () => {
  show()
  main.querySelector("h1")?.focus({ preventScroll: true })
  speak(shown.title)
})

// Pictures are pasted wherever one is on the page, and dropped beside the field as well.
window.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])]
  if (files.length) shown.take?.(files)
})
for (const kind of ["dragover", "drop", "dragleave"]) {
  window.addEventListener(kind, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return
    event.preventDefault()
    const over = kind === "dragover" || (kind === "dragleave" && event.relatedTarget !== null)
    document.body.classList.toggle("over", over && Boolean(shown.take))
    if (kind === "drop") shown.take?.([...event.dataTransfer.files])
  })
}

// Whether it is ready

const state = document.getElementById("state")

async function watch() {
  let seconds = NOT_READY_S
  try {
    const ready = await api.ready()
    if (ready.ready) {
      seconds = READY_S
      await countClasses()
    } else tell("waiting", `Starting: ${ready.waiting_for}`)
  } catch {
    tell("away", "Not reachable")
  }
  setTimeout(watch, 1000 * seconds)
}

async function countClasses() {
  let needsKey = false
  try {
    const info = await api.info()
    tell("ready", plural(info.classes, "class", "classes"))
  } catch (problem) {
    needsKey = problem.status === 401
    tell(needsKey ? "waiting" : "away", needsKey ? "Needs a key" : "Not reachable")
  }
  document.getElementById("key-button").classList.toggle("primary", needsKey)
}

function tell(kind, text) {
  state.className = `state ${kind}`
  if (state.textContent !== text) state.textContent = text
}

window.addEventListener("classes-changed", () => countClasses())

// The key

function askForKey() {
  if (document.querySelector("dialog")) return
  const field = el("input", { type: "password", id: "key", autocomplete: "off", value: key.get(), spellcheck: false })
  const remember = el("input", { type: "checkbox", id: "remember" })
  const dialog = el("dialog", { "aria-labelledby": "key-title" })
  const save = (event) => {
    event.preventDefault()
    key.set(field.value.trim(), { remember: remember.checked })
    dialog.close()
    toast(field.value.trim() ? "The key is used from now on." : "The key is forgotten.")
    countClasses()
    show()
  }
  dialog.append(
    el("form", { onsubmit: save },
      el("h2", { id: "key-title" }, "API key"),
      el("p.hint", {}, "This service may run with keys. Whoever runs it makes one with `firstsight keys create`."),
      el("label", { htmlFor: "key" }, "Key"), field,
      el("label.check", {}, remember, "Remember it on this device"),
      el("div.row", {},
        el("button.primary", { type: "submit" }, "Use this key"),
        el("button", { type: "button", onclick: () => dialog.close() }, "Cancel"))))
  dialog.addEventListener("close", () => dialog.remove())
  document.body.append(dialog)
  dialog.showModal()
}

document.getElementById("key-button").addEventListener("click", askForKey)
window.addEventListener("key-needed", askForKey)

show()
watch()
