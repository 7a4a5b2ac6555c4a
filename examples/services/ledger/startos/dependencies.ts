import { sdk } from './sdk'
import { vault } from './vault'

export const setDependencies = sdk.setupDependencies(async () => ({
  vault: { kind: 'running', versionRange: '>=1.1.0:0', healthChecks: ['web'] },
}))

/** The vault's action with the settings, as far as it is used here. */
const configure = { id: 'configure', _INPUT: {} as { title: string; limit: number } } as const

/** Asks the owner to give the vault more room; done as soon as it has it. */
export const askForRoom = sdk.setupOnInit(async effects => {
  await sdk.action.createTask(effects, vault, configure, 'important', {
    when: { condition: 'input-not-matches', once: false },
    input: { kind: 'partial', accept: [{ limit: 10_000 }, { limit: 100_000 }], set: { limit: 10_000 } },
    reason: 'The accounts need longer entries.',
  })
})
