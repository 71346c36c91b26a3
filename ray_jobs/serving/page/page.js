// One photo in, its answers out. Nothing is stored but the language.
"use strict"
const TEXTS = {
  en: {
    title: "Mask, gender and age in a photo", token: "Token:",
    drop: "Drop a photo of a person here, or", choose: "choose a photo", camera: "use the camera",
    kept: "The photo is sent to this service, answered and forgotten.",
    asking: "Asking the models …", explaining: "Looking for what spoke for it …",
    why: "What spoke for it", docs: "Interface for programs",
    legend: "Red parts: the answer gets less sure when they are hidden. The picture is what the models saw.",
    unreadable: "This file cannot be read as a photo: ", failed: "The service did not answer: ",
    likelier: "most votes; another class has the higher mean probability",
    shown: "The photo", boxed: "The photo, with the face that was found", mask: "Mask", gender: "Gender", age: "Age",
    mask_worn: "worn", mask_incorrect: "worn incorrectly", mask_not_worn: "not worn",
    gender_male: "male", gender_female: "female",
    age_under_30: "under 30", age_from_30_to_59: "30 to 59", age_from_60: "from 60",
  },
  ko: {
    title: "사진 속 마스크, 성별, 나이", token: "토큰:",
    drop: "사람 사진을 여기에 끌어다 놓거나", choose: "사진 고르기", camera: "카메라로 찍기",
    kept: "사진은 이 서비스에 보내져 답을 얻고 나면 남지 않습니다.",
    asking: "모델에게 묻는 중 …", explaining: "판단의 근거를 찾는 중 …",
    why: "판단의 근거", docs: "프로그램용 인터페이스",
    legend: "빨간 부분: 가리면 답의 확신이 줄어듭니다. 그림은 모델이 본 모습입니다.",
    unreadable: "사진으로 읽을 수 없는 파일입니다: ", failed: "서비스가 답하지 않았습니다: ",
    likelier: "표가 가장 많은 답이며, 평균 확률은 다른 클래스가 더 높습니다",
    shown: "사진", boxed: "사진과 찾은 얼굴", mask: "마스크", gender: "성별", age: "나이",
    mask_worn: "착용", mask_incorrect: "잘못 착용", mask_not_worn: "미착용",
    gender_male: "남성", gender_female: "여성",
    age_under_30: "30세 미만", age_from_30_to_59: "30~59세", age_from_60: "60세 이상",
  },
}
const CLASSES = {
  mask: ["worn", "incorrect", "not_worn"], gender: ["male", "female"],
  age: ["under_30", "from_30_to_59", "from_60"],
}
const byId = (id) => document.getElementById(id)
let language = localStorage.getItem("language") || (navigator.language.startsWith("ko") ? "ko" : "en")
let row = null, explained = null, message = null, asked = 0, address = null

function text(key) { return TEXTS[language][key] }

function element(kind, content, name) {
  const made = document.createElement(kind)
  if (content !== undefined) made.textContent = content
  if (name) made.className = name
  return made
}

function show() {
  document.documentElement.lang = language
  for (const one of document.querySelectorAll("[data-text]")) one.textContent = text(one.dataset.text)
  for (const one of document.querySelectorAll("[data-language]"))
    one.setAttribute("aria-pressed", one.dataset.language === language)
  byId("message").textContent = message ? (text(message[0]) || "") + message[1] : ""
  byId("message").className = message && message[2] ? "wrong" : ""
  byId("result").hidden = !row
  byId("why").hidden = !explained
  if (row) { showAnswers(); showBox() }
  if (explained) showMaps()
}

function showAnswers() {
  const all = []
  for (const [attribute, names] of Object.entries(CLASSES)) {
    if (row[attribute] === undefined) continue
    const part = element("div", undefined, "answer")
    part.append(`${text(attribute)}: `, element("strong", text(`${attribute}_${row[attribute]}`)))
    const values = names.map((name) => row[`p_${attribute}_${name}`])
    names.forEach((name, k) => {
      const line = element("div", undefined, "bar"), meter = element("meter")
      meter.value = values[k]
      meter.setAttribute("aria-label", text(`${attribute}_${name}`))
      line.append(element("span", text(`${attribute}_${name}`)), meter,
        element("span", `${(100 * values[k]).toFixed(1)} %`))
      part.append(line)
    })
    if (row[`p_${attribute}_${row[attribute]}`] < Math.max(...values) - 1e-9)
      part.append(element("p", text("likelier"), "quiet"))
    all.push(part)
  }
  byId("answers").replaceChildren(...all)
}

function showBox() {
  const image = byId("shown"), box = byId("box")
  box.hidden = row.box_left === null || !image.naturalWidth
  image.alt = text(box.hidden ? "shown" : "boxed")
  if (box.hidden) return
  const share = (pixels, whole) => `${(100 * pixels) / whole}%`
  box.style.left = share(row.box_left, image.naturalWidth)
  box.style.top = share(row.box_top, image.naturalHeight)
  box.style.width = share(row.box_width, image.naturalWidth)
  box.style.height = share(row.box_height, image.naturalHeight)
}

function showMaps() {
  const all = []
  for (const [attribute, parts] of Object.entries(explained.support)) {
    const figure = element("figure"), map = element("div", undefined, "map")
    const image = element("img"), heat = element("div")
    const caption = `${text(attribute)}: ${text(`${attribute}_${row[attribute]}`)}`
    image.src = explained.picture
    image.alt = caption
    heat.style.gridTemplateColumns = `repeat(${parts[0].length}, 1fr)`
    const most = Math.max(0.02, ...parts.flat())
    for (const part of parts.flat()) {
      const cell = element("span")
      cell.style.background = `rgba(var(--hot), ${Math.max(0, (0.7 * part) / most)})`
      heat.append(cell)
    }
    map.append(image, heat)
    figure.append(map, element("figcaption", caption))
    all.push(figure)
  }
  byId("maps").replaceChildren(...all)
}

async function post(path, file) {
  const form = new FormData(), token = byId("token").value.trim()
  form.append("photos", file)
  const answer = await fetch(path, {
    method: "POST", body: form, headers: token ? { Authorization: `Bearer ${token}` } : {},
  })
  const content = await answer.json().catch(() => ({ detail: answer.statusText }))
  if (answer.ok) return content
  const detail = content.detail
  throw Array.isArray(detail) && detail[0].reason
    ? ["unreadable", detail[0].reason] : ["failed", `${answer.status} ${detail}`]
}

async function ask(file) {
  if (!file) return
  const mine = ++asked
  row = explained = null
  message = ["asking", ""]
  show()
  try {
    const found = (await post("/predict", file)).photos[0]
    if (mine !== asked) return
    if (address) URL.revokeObjectURL(address)
    byId("shown").src = address = URL.createObjectURL(file)
    await byId("shown").decode().catch(() => {})
    row = found
    message = ["explaining", ""]
    show()
    const reasons = await post("/explain", file)
    if (mine !== asked) return
    explained = reasons
    row = { ...row, box_left: reasons.box_left, box_top: reasons.box_top,
      box_width: reasons.box_width, box_height: reasons.box_height }
    message = null
  } catch (error) {
    if (mine !== asked) return
    message = Array.isArray(error) ? [...error, true] : ["failed", String(error.message), true]
  }
  show()
}

for (const button of document.querySelectorAll("[data-language]"))
  button.addEventListener("click", () => {
    language = button.dataset.language
    localStorage.setItem("language", language)
    show()
  })
for (const id of ["choose", "camera"])
  byId(id).addEventListener("change", (event) => {
    ask(event.target.files[0])
    event.target.value = ""
  })
for (const kind of ["dragover", "drop"])
  document.addEventListener(kind, (event) => event.preventDefault())
document.addEventListener("dragover", () => byId("drop").classList.add("over"))
document.addEventListener("dragleave", () => byId("drop").classList.remove("over"))
document.addEventListener("drop", (event) => {
  byId("drop").classList.remove("over")
  ask(event.dataTransfer.files[0])
})
fetch("/health").then((answer) => answer.json()).then((health) => {
  byId("token-line").hidden = !health.token
})
show()
