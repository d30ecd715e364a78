// The calls: key, problems, retries with one idempotency key a write, and no answer older than one that was seen.

const KEY = "firstsight.key"
const AGAIN = new Set([429, 502, 503, 504])
const IN_PROGRESS = "idempotency-key-in-progress" // an earlier attempt of ours is still at work
const RETRIES = 3
const AT_ONCE = 6 // of pictures that are fetched, so that a page of crops leaves room for others

let newest = null // { token, at }: the newest X-Version that was seen, and the numbers that it consists of

export class Problem extends Error {
  constructor(status, body) {
    super(body?.detail ?? `The service answered ${status}.`)
    this.status = status
    this.kind = (body?.type ?? "").split(":").pop()
    this.field = body?.field ?? null
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY) ?? "",
  set(value, { remember }) {
    this.clear()
    if (value) (remember ? localStorage : sessionStorage).setItem(KEY, value)
  },
  clear() {
    sessionStorage.removeItem(KEY)
    localStorage.removeItem(KEY)
    newest = null // another key may see another collection, with versions and pictures of its own
    crops.clear()
  },
}

const classPath = (name) => `/classes/${encodeURIComponent(name)}`
const examplePath = (name, id) => `${classPath(name)}/examples/${encodeURIComponent(id)}`

export const api = {
  ready: async () => (await fetch("/readyz")).json(),
  info: () => json("GET", "/info", { quiet: true }), // asked again and again, so it opens no dialog
  classes: (cursor = null, limit = 60) => json("GET", "/classes?" + query({ limit, cursor })),
  readClass: (name) => json("GET", classPath(name)),
  examples: (name, cursor = null, limit = 100) => json("GET", `${classPath(name)}/examples?` + query({ limit, cursor })),
  change: (name, patch, version) => json("PATCH", classPath(name), { body: JSON.stringify(patch), type: "application/json", version }),
  removeClass: (name, version) => json("DELETE", classPath(name), { version }),
  removeExample: (name, id) => json("DELETE", examplePath(name, id)),
  enrol: (name, pictures, { dryRun = false } = {}) =>
    json("POST", `${classPath(name)}/examples?` + query({ dry_run: dryRun || null }), { body: form(pictures) }),
  classify: (file, box = null) =>
    json("POST", "/classify?" + query({ top_k: 5, box: box && boxText(box) }), { body: file, type: "application/octet-stream" }),
  classifyBatch: (pictures, onlyClass) =>
    json("POST", "/classify/batch?" + query({ top_k: 1, classes: onlyClass }), { body: form(pictures) }),
  detect: (file, tiles = "auto") => json("POST", "/detect?" + query({ tiles }), { body: file, type: "application/octet-stream" }),
}

/** The stored crop of an example, { blob, url }, fetched once. Rejects where crops are not stored. */
const crops = new Map()
export function crop(className, id) {
  const path = examplePath(className, id) + "/image"
  if (!crops.has(path)) {
    const fetched = inTurn(() => send("GET", path, {})).then(async (response) => {
      const blob = await response.blob()
      return { blob, url: URL.createObjectURL(blob) }
    })
    fetched.catch(() => crops.delete(path))
    crops.set(path, fetched)
  }
  return crops.get(path)
}

async function json(method, path, options = {}) {
  return (await send(method, path, options)).json()
}

async function send(method, path, { body = null, type = null, version = null, quiet = false }) {
  const headers = {}
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`
  if (type) headers["Content-Type"] = type
  if (version !== null) headers["If-Match"] = `"${version}"`
  if (method !== "GET" && !path.startsWith("/classify") && !path.startsWith("/detect")) headers["Idempotency-Key"] = newKey()
  for (let attempt = 0; ; attempt++) {
    if (newest) headers["X-Min-Version"] = newest.token
    const response = await fetch(path, { method, headers, body }).catch(() => null)
    if (response?.ok) return noted(response)
    const problem = response ? new Problem(response.status, await response.json().catch(() => null)) : unreachable()
    if (attempt < RETRIES && (response === null || AGAIN.has(problem.status) || problem.kind === IN_PROGRESS)) {
      await pause(Math.max(Number(response?.headers.get("Retry-After") ?? 0), 0.3 * 2 ** attempt))
      continue
    }
    if (problem.status === 401 && !quiet) window.dispatchEvent(new CustomEvent("key-needed"))
    throw problem
  }
}

const unreachable = () => new Problem(0, { detail: "The service cannot be reached. Is it running, and this machine online?" })

/** Answers to calls made side by side come in any order: what counts is the epoch of the store, then the version in it. */
function noted(response) {
  const token = response.headers.get("X-Version")
  if (!token) return response
  const at = token.split("-").map(Number)
  if (!newest || at[0] > newest.at[0] || (at[0] === newest.at[0] && at[1] > newest.at[1])) newest = { token, at }
  return response
}

function form(pictures) {
  const parts = new FormData()
  for (const { file, box } of pictures) {
    parts.append("image", file)
    if (box) parts.append("box", boxText(box))
  }
  return parts
}

const boxText = ({ x, y, width, height }) => [x, y, width, height].join(",")
const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds * (1 + Math.random() / 2)))

function query(parameters) {
  return new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined))
}

function newKey() {
  // randomUUID is for secure origins only, and a service on a shop's network may be plain http.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("")
}

let busy = 0
const waiting = []
async function inTurn(work) {
  if (busy >= AT_ONCE) await new Promise((resolve) => waiting.push(resolve))
  busy++
  try {
    return await work()
  } finally {
    busy--
    waiting.shift()?.()
  }
}
