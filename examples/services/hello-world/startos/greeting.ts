import { FileHelper, z } from '@start9labs/start-sdk'
import { sdk } from './sdk'

export const colours = ['#1f6f5c', '#24507a', '#7a2e3b'] as const

export const defaultGreeting = { name: 'World', colour: colours[0] as (typeof colours)[number] }

/** What the owner chose, on the volume: greeting.json. */
export const greetingFile = FileHelper.json(
  { base: sdk.volumes.main, subpath: 'greeting.json' },
  z.object({ name: z.string(), colour: z.enum(colours) }),
)

/** The page that the web server serves: www/index.html on the same volume. */
const pageFile = FileHelper.string({ base: sdk.volumes.main, subpath: 'www/index.html' })

const escaped: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' }
const escape = (text: string) => text.replace(/[&<>"]/g, (c) => escaped[c])

/** Writes the page from greeting.json, which it makes when it is not there. */
export async function renderPage(effects: Parameters<typeof pageFile.write>[0]) {
  let greeting = await greetingFile.read().once()
  if (!greeting) {
    greeting = defaultGreeting
    await greetingFile.write(effects, greeting)
  }
  await pageFile.write(
    effects,
    `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Hello ${escape(greeting.name)}</title>
<style>
  body { margin: 0; min-height: 100vh; display: grid; place-items: center; font: 1.2rem system-ui, sans-serif; background: ${escape(greeting.colour)}; color: #fff }
  h1 { font-size: clamp(2rem, 8vw, 5rem); margin: 0 }
</style>
<main><h1>Hello ${escape(greeting.name)}!</h1><p>Served from your own machine.</p></main>
`,
  )
}
