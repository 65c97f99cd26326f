// Browsers refuse workers to pages that are opened from files. The search then runs in a hidden frame, which takes the
// same messages and gives the same answers.
if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(address) {
      super()
      this.onmessage = null
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      // What the worker posts goes to this object; a frame of this kind shares its parent's origin.
      this.frame.answer = data => {
        const event = new MessageEvent("message", { data })
        this.dispatchEvent(event)
        this.onmessage?.(event)
      }
      this.loaded = new Promise(resolve => this.frame.addEventListener("load", resolve, { once: true }))
      const script = document.createElement("script")
      script.src = new URL(address, location.href).href
      this.frame.srcdoc = `<script>window.postMessage = data => frameElement.answer(data)</script>${script.outerHTML}`
      document.body.append(this.frame)
    }

    postMessage(data) {
      const sent = () => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }))
      this.loaded.then(sent)
    }

    terminate() {
      this.frame.remove()
    }
  }
}
