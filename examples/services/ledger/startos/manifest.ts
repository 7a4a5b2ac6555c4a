import { setupManifest } from '@start9labs/start-sdk'

const here = 'https://github.com/selfstead/selfstead/tree/main/examples/services/ledger'

export const manifest = setupManifest({
  id: 'ledger',
  title: 'Ledger',
  license: 'MIT',
  packageRepo: here,
  upstreamRepo: 'https://git.busybox.net/busybox',
  marketingUrl: here,
  donationUrl: null,
  description: {
    short: 'Accounts that are kept in a vault',
    long: 'Keeps amounts in the service Vault and shows a report of them. It shows how one service uses another.',
  },
  volumes: ['main'],
  images: {
    web: { source: { dockerBuild: {} }, arch: ['x86_64', 'aarch64'], emulateMissingAs: null },
  },
  dependencies: {
    vault: { description: 'Keeps the accounts', optional: false, metadata: { title: 'Vault', icon: '../vault/icon.svg' } },
  },
  plugins: ['url-v0'],
})
