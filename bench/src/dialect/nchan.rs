//! nchan: nginx's publish-subscribe module. Its clients subscribe by the upgrade request; a frame is a message.
//! Measured: 1.3.6 in nginx 1.22.1 (Debian). Settings (`bench/peers/nchan/nginx.conf`): a worker a core, `reuseport`,
//! no logs, no deflate, a message buffer longer than any phase, so that a subscriber who is behind misses nothing.

use super::Dialect;
use super::content::Content;
use crate::peers::kit::{Kit, Program};
use crate::peers::server::{Launch, Site};
use crate::peers::{Peer, bare};
use crate::publish::Form;

#[derive(Debug)]
pub struct Nchan;

const CONFIG: &str = include_str!("../../peers/nchan/nginx.conf");
/// Where packages put the module.
const MODULES: [&str; 2] =
    ["/usr/lib/nginx/modules/ngx_nchan_module.so", "/usr/lib64/nginx/modules/ngx_nchan_module.so"];

impl Peer for Nchan {
    fn name(&self) -> &'static str {
        "nchan"
    }

    fn dialect(&self) -> &'static dyn Dialect {
        &Self
    }

    fn path(&self) -> &'static str {
        "/sub"
    }

    fn find(&self, kit: &Kit) -> Result<Program, String> {
        let nginx = kit.program("nginx")?;
        module().ok_or("nginx is here, its module is not: install libnginx-mod-nchan")?;
        let version = kit.answer(&nginx, &["-v"]).replace("nginx version: nginx/", "");
        let module = kit.package("libnginx-mod-nchan").unwrap_or_else(|| "of unknown version".to_owned());
        Ok(Program { path: nginx, version: format!("{module} in nginx {version}") })
    }

    fn launch(&self, program: &Program, site: &Site) -> anyhow::Result<Launch> {
        let module = module().unwrap_or_default();
        let config = site.write("nginx.conf", &site.fill(CONFIG).replace("{module}", module))?;
        let folder = site.folder().display().to_string();
        Ok(Launch::new(program).arguments(&["-p", &folder, "-e", "stderr", "-c", &config]))
    }
}

fn module() -> Option<&'static str> {
    MODULES.into_iter().find(|path| std::path::Path::new(path).exists())
}

impl Dialect for Nchan {
    fn name(&self) -> &'static str {
        "nchan"
    }

    fn is_open_at_once(&self) -> bool {
        true
    }

    fn join(&self, _rooms: &[String]) -> Option<Vec<u8>> {
        None
    }

    fn parse(&self, payload: &[u8]) -> Content {
        bare(payload)
    }

    fn form(&self) -> Form {
        Form::Post("/pub")
    }
}
