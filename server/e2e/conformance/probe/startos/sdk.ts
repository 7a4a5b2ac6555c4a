import { setupManifest, StartSdk } from '@start9labs/start-sdk'

export const source = setupManifest({
  id: 'conformance-probe',
  title: 'Conformance probe',
  license: 'MIT',
  packageRepo: 'https://github.com/selfstead/selfstead',
  upstreamRepo: 'https://github.com/selfstead/selfstead',
  marketingUrl: 'https://github.com/selfstead/selfstead',
  donationUrl: null,
  description: { short: 'Calls every effect', long: 'Calls every effect of the SDK from inside a service and reports what came back.' },
  volumes: ['main', 'data'],
  images: { main: { source: { dockerBuild: {} }, arch: ['x86_64', 'aarch64'], emulateMissingAs: null } },
  dependencies: {
    'conformance-peer': { description: 'What is read, watched and mounted', optional: false, metadata: { title: 'Conformance peer', icon: '../peer/icon.svg' } },
  },
  plugins: ['url-v0'],
})

export const sdk = StartSdk.of().withManifest(source).build(true)
