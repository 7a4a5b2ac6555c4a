import type { T } from '@start9labs/start-sdk'

/** A test has a name and throws when it fails. */
export type Tests = Record<string, (effects: T.Effects) => Promise<unknown>>

/** Runs every test and makes an action's result of what they say. */
export async function run(effects: T.Effects, tests: Tests): Promise<T.ActionResult & { version: '1' }> {
  const value: T.ActionResultMember[] = []
  let failed = 0
  for (const [name, test] of Object.entries(tests)) {
    const outcome = await test(effects).then(
      () => 'ok',
      e => `failed: ${e instanceof Error ? e.message : e}`,
    )
    if (outcome !== 'ok') failed++
    value.push({ type: 'single', name, description: null, value: outcome, copyable: false, qr: false, masked: false })
  }
  return { version: '1', title: 'Self-test', message: failed ? `${failed} of ${value.length} failed` : `All ${value.length} passed`, result: { type: 'group', value } }
}
