//! The foreign servers of the path confusion tests, each with its most lenient settings, each started for one test.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use tokio::net::TcpStream;

use crate::world::{Process, reserve_address, tool, until};

/// The response body of a server that has read a path below `/admin`.
pub const UNDERSTOOD: &str = "x-zone: admin";

/// Starts a server in a folder, at an address.
type Start = fn(&Path, SocketAddr) -> Process;

/// The five servers with their addresses. Each server reports the path that it read.
pub struct Servers {
    pub addresses: [(&'static str, SocketAddr); 5],
    _processes: Vec<Process>,
}

impl Servers {
    pub async fn start(folder: &Path) -> Self {
        let starts: [(&str, Start); 5] =
            [("nginx", nginx), ("apache", apache), ("node", node), ("gunicorn", gunicorn), ("tomcat", tomcat)];
        let addresses = starts.map(|(name, _)| (name, reserve_address()));
        let processes = starts.iter().zip(addresses).map(|((_, start), (_, address))| start(folder, address)).collect();
        for (name, address) in addresses {
            until(&format!("{name} listens"), async || TcpStream::connect(address).await.ok()).await;
        }
        Self { addresses, _processes: processes }
    }
}

fn spawn(mut command: std::process::Command, log: &Path) -> Process {
    let log = std::fs::File::create(log).unwrap();
    Process::spawn(command.stdout(Stdio::null()).stderr(log))
}

fn nginx(folder: &Path, address: SocketAddr) -> Process {
    let at = folder.display();
    let config = format!(
        "daemon off; master_process off; pid {at}/n.pid; error_log {at}/n-error.log;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; client_body_temp_path {at}/n1; proxy_temp_path {at}/n2; fastcgi_temp_path {at}/n3;\n\
         uwsgi_temp_path {at}/n4; scgi_temp_path {at}/n5;\n\
         server {{ listen {address};\n\
         location = /admin {{ add_header X-Zone admin always; return 200 admin; }}\n\
         location /admin/ {{ add_header X-Zone admin always; return 200 admin; }}\n\
         location / {{ add_header X-Zone open always; return 200 open; }} }} }}\n"
    );
    std::fs::write(folder.join("n.conf"), config).unwrap();
    let mut command = tool("nginx");
    command.arg("-p").arg(folder).arg("-c").arg(folder.join("n.conf"));
    spawn(command, &folder.join("n.log"))
}

fn apache(folder: &Path, address: SocketAddr) -> Process {
    let at = folder.display();
    std::fs::create_dir_all(folder.join("root")).unwrap();
    let config = format!(
        "ServerRoot {at}\nPidFile {at}/a.pid\nDefaultRuntimeDir {at}\nServerName gateway\nListen {address}\n\
         LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so\n\
         LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so\n\
         LoadModule headers_module /usr/lib/apache2/modules/mod_headers.so\n\
         DocumentRoot {at}/root\nErrorLog {at}/a-error.log\nUser nobody\nGroup nogroup\nAllowEncodedSlashes On\n\
         <Location \"/\">\nHeader always set X-Zone open\n</Location>\n\
         <Location \"/admin\">\nHeader always set X-Zone admin\n</Location>\n"
    );
    std::fs::write(folder.join("a.conf"), config).unwrap();
    let mut command = tool("apache2");
    command.arg("-X").arg("-f").arg(folder.join("a.conf"));
    spawn(command, &folder.join("a.log"))
}

/// Reads paths as many applications do: decodes once, then normalizes.
const NODE: &str = r#"
const http = require("http"), path = require("path");
const [host, port] = process.argv[2].split(":");
http.createServer((request, response) => {
  let understood = request.url.split("?")[0];
  try { understood = decodeURIComponent(understood); } catch {}
  understood = path.posix.normalize(understood.replaceAll("\\", "/"));
  const admin = understood === "/admin" || understood.startsWith("/admin/");
  response.setHeader("X-Zone", admin ? "admin" : "open");
  response.end(understood.replace(/[^ -~]/g, "?"));
}).listen(+port, host);
"#;

fn node(folder: &Path, address: SocketAddr) -> Process {
    std::fs::write(folder.join("server.js"), NODE).unwrap();
    let mut command = tool("node");
    command.arg(folder.join("server.js")).arg(address.to_string());
    spawn(command, &folder.join("node.log"))
}

/// Like [`NODE`], behind the interface of Python's servers (WSGI): the server has already decoded the path.
const PYTHON: &str = r#"
import posixpath

def understand(environ, start_response):
    understood = "/" + posixpath.normpath(environ["PATH_INFO"].replace("\\", "/")).lstrip("/")
    admin = understood == "/admin" or understood.startswith("/admin/")
    start_response("200 OK", [("X-Zone", "admin" if admin else "open"), ("Content-Length", "0")])
    return []
"#;

fn gunicorn(folder: &Path, address: SocketAddr) -> Process {
    std::fs::write(folder.join("understanding.py"), PYTHON).unwrap();
    let mut command = tool("gunicorn");
    command.args(["--threads", "8", "--bind"]).arg(address.to_string()).arg("--chdir").arg(folder);
    command.arg("understanding:understand");
    spawn(command, &folder.join("gunicorn.log"))
}

/// Java's server parses the path itself, and the application asks for the parsed path: text after a `;` is no part of a
/// name.
fn tomcat(folder: &Path, address: SocketAddr) -> Process {
    let base = folder.join("tomcat");
    let (at, root) = (base.display(), base.join("root"));
    for below in ["conf", "temp", "root/WEB-INF"] {
        std::fs::create_dir_all(base.join(below)).unwrap();
    }
    let server = format!(
        "<Server port='-1'><Service name='Catalina'>\n\
         <Connector address='{}' port='{}' encodedSolidusHandling='decode' allowBackslash='true' relaxedPathChars='\\'/>\n\
         <Engine name='Catalina' defaultHost='city'><Host name='city' autoDeploy='false' deployOnStartup='false'>\n\
         <Context path='' docBase='{at}/root'/></Host></Engine></Service></Server>\n",
        address.ip(),
        address.port()
    );
    std::fs::write(base.join("conf/server.xml"), server).unwrap();
    let mut pages =
        "<web-app xmlns='https://jakarta.ee/xml/ns/jakartaee' version='6.0' metadata-complete='true'>\n".to_owned();
    for (zone, paths) in [("admin", "/admin/*"), ("open", "/")] {
        let page = format!("<%@ page session='false' %><% response.setHeader(\"X-Zone\", \"{zone}\"); %>");
        std::fs::write(root.join(format!("{zone}.jsp")), page).unwrap();
        pages += &format!(
            "<servlet><servlet-name>{zone}</servlet-name><jsp-file>/{zone}.jsp</jsp-file></servlet>\n\
             <servlet-mapping><servlet-name>{zone}</servlet-name><url-pattern>{paths}</url-pattern></servlet-mapping>\n"
        );
    }
    std::fs::write(root.join("WEB-INF/web.xml"), pages + "</web-app>\n").unwrap();
    let mut command = tool("java");
    command.args(["-Xmx96m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]); // a fast start, and little memory
    command.arg("/usr/share/tomcat10/bin/bootstrap.jar:/usr/share/tomcat10/bin/tomcat-juli.jar");
    command.arg("-Dcatalina.home=/usr/share/tomcat10").arg(format!("-Dcatalina.base={at}"));
    command.arg(format!("-Djava.io.tmpdir={at}/temp")).args(["org.apache.catalina.startup.Bootstrap", "start"]);
    spawn(command, &folder.join("tomcat.log"))
}
